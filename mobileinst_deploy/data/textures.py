"""Grey patterns seen through colour ramps: an endless supply of textures for little time."""

from __future__ import annotations

import colorsys
from functools import cache, lru_cache

import cv2
import numpy as np

#: Height and width of every pattern in pixels.
PATTERN_SIZE = 512
_BANK_SEED = 20230317


@cache
def pattern_bank() -> tuple[np.ndarray, ...]:
    """The grey patterns, each (512, 512) uint8 and spread evenly over 0 to 255.

    Clouds of three grains, wavy stripes, checks, dots and cells. Made once per process, always the
    same; do not write into them.
    """
    rng = np.random.default_rng(_BANK_SEED)
    y, x = np.mgrid[:PATTERN_SIZE, :PATTERN_SIZE].astype(np.float32)
    warp_x, warp_y = (40 * (_clouds(rng, 6, 0.5) - 0.5) for _ in range(2))
    u, v = x + warp_x, y + warp_y
    seeds = np.ones((PATTERN_SIZE, PATTERN_SIZE), np.uint8)
    seeds[tuple(rng.integers(0, PATTERN_SIZE, (2, 160)))] = 0
    patterns = [
        _clouds(rng, 4, 0.45),
        _clouds(rng, 8, 0.6),
        _clouds(rng, 24, 0.75),
        np.sin(u / 5),
        np.sin(v / 9) + 0.5 * _clouds(rng, 24, 0.6),
        np.sin(u / 8) * np.sin(v / 8),
        np.sign(np.sin(x / 9) * np.sin(y / 9)) + _clouds(rng, 16, 0.6),
        np.maximum(np.cos(x / 6), 0) * np.maximum(np.cos(y / 6), 0) + 0.4 * _clouds(rng, 8, 0.6),
        cv2.distanceTransform(seeds, cv2.DIST_L2, 5),
    ]
    return tuple(_spread(pattern) for pattern in patterns)


@lru_cache(maxsize=8)
def grain(strength: float, height: int, width: int) -> np.ndarray:
    """Sensor noise (height, width, 3) int16 around 0 of a strength in grey levels.

    Made once per strength and size, always the same; do not write into it.
    """
    noise = np.random.default_rng(_BANK_SEED + 1).standard_normal((height, width, 3), np.float32)
    scaled: np.ndarray = np.rint(noise * strength)
    return scaled.astype(np.int16)


def colour_ramp(colours: np.ndarray) -> np.ndarray:
    """A ramp (256, 1, 3) uint8 that passes evenly through colours (n, 3) in 0 to 255."""
    grey = np.linspace(0, len(colours) - 1, 256)
    at = np.arange(len(colours))
    ramp: np.ndarray = np.stack([np.interp(grey, at, colours[:, c]) for c in range(3)], -1)
    return ramp.round().astype(np.uint8)[:, None]


def rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """One colour (3,) in 0 to 255 from hue, saturation and value in [0, 1]; hue wraps."""
    colour: np.ndarray = 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))
    return colour


def _clouds(rng: np.random.Generator, cells: int, persistence: float) -> np.ndarray:
    """Noise of octaves from ``cells`` bumps a side up to pixels, (512, 512) float32 in [0, 1]."""
    total: np.ndarray = np.zeros((PATTERN_SIZE, PATTERN_SIZE), np.float32)
    amplitude = 1.0
    while cells <= PATTERN_SIZE // 2:
        coarse = rng.random((cells, cells), np.float32)
        side = (PATTERN_SIZE, PATTERN_SIZE)
        total += amplitude * cv2.resize(coarse, side, interpolation=cv2.INTER_CUBIC)
        cells *= 2
        amplitude *= persistence
    total -= total.min()
    total /= total.max()
    return total


def _spread(pattern: np.ndarray) -> np.ndarray:
    """Clip the outermost percent and stretch to 0..255, so that every pattern has full contrast."""
    low, high = np.percentile(pattern, (1, 99))
    spread: np.ndarray = np.clip((pattern - low) * (255 / (high - low)), 0, 255)
    return spread.astype(np.uint8)
