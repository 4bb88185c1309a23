"""How a drawn sample is varied: mirrored, zoomed, recoloured, with others' instances pasted on.

Every function takes all frames of a sample alike, and draws from the generator that it is given.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from mobileinst_deploy.core.picture_rules import PADDING
from mobileinst_deploy.training.config import StageConfig

# An instance of which less is left after a crop or a paste is hardly to be seen at 1/8.
MIN_AREA = 64
MIN_SHARE = 0.15
#: Of a pasted picture's instances' scale, against the picture that they are pasted on.
PASTE_ZOOM = (0.25, 1.0)


class LabelledFrames(NamedTuple):
    """Some frames of one clip and the instances in them.

    Attributes:
        images: (F, H, W, 3) uint8, RGB.
        labels: (n,) int64 class indices of the instances that any of the frames shows.
        masks: (n, F, H, W) bool; all False where an instance is not in a frame.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def vary(
    frames: LabelledFrames, flip: bool, stage: StageConfig, rng: np.random.Generator
) -> LabelledFrames:
    """Mirror and resize.

    Args:
        frames: What was read.
        flip: Whether half of the samples are mirrored.
        stage: Its zoom, or its ``short_sides`` and ``long_side``, say how large they become.
        rng: Where the draws come from; always drawn alike, so that options do not shift them.
    """
    mirrored = bool(rng.random() < 0.5)
    short = rng.random()
    if flip and mirrored:
        frames = _mirrored(frames)
    if stage.zoom:
        return zoom(frames, (stage.size[0], stage.size[1]), (stage.zoom[0], stage.zoom[1]), rng)
    if stage.short_sides:
        side = stage.short_sides[int(short * len(stage.short_sides))]
        frames = rescale(frames, side, stage.long_side)
    return frames


def _mirrored(frames: LabelledFrames) -> LabelledFrames:
    """Left to right, by OpenCV: a numpy view backwards is slow to read wherever it goes next."""
    images, masks = np.empty_like(frames.images), np.empty_like(frames.masks)
    for image, out in zip(frames.images, images, strict=True):
        cv2.flip(np.ascontiguousarray(image), 1, out)
    rows = frames.masks.shape[2:]
    for mask, out in zip(frames.masks.reshape(-1, *rows), masks.reshape(-1, *rows), strict=True):
        cv2.flip(np.ascontiguousarray(mask).view(np.uint8), 1, out.view(np.uint8))
    return LabelledFrames(images, frames.labels, masks)


def rescale(frames: LabelledFrames, short_side: int, long_side: int) -> LabelledFrames:
    """Resize so that the short side has a length, or the long one its limit if that is smaller."""
    height, width = frames.images.shape[1:3]
    scale = min(short_side / min(height, width), long_side / max(height, width))
    h, w = max(round(height * scale), 1), max(round(width * scale), 1)
    if (h, w) == (height, width):
        return frames
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    n, f = frames.masks.shape[:2]
    images = np.empty((f, h, w, 3), np.uint8)
    for image, out in zip(frames.images, images, strict=True):
        cv2.resize(image, (w, h), out, interpolation=how)
    masks = np.empty((n, f, h, w), bool)
    for mask, out in zip(
        frames.masks.reshape(-1, height, width), masks.reshape(-1, h, w), strict=True
    ):
        soft = out.view(np.uint8)
        cv2.resize(mask.view(np.uint8) * np.uint8(255), (w, h), soft, interpolation=how)
        cv2.threshold(soft, 127, 1, cv2.THRESH_BINARY, soft)
    return LabelledFrames(images, frames.labels, masks)


def zoom(
    frames: LabelledFrames,
    size: tuple[int, int],
    factors: tuple[float, float],
    rng: np.random.Generator,
) -> LabelledFrames:
    """Fit into a size, scale by a drawn factor, and crop or pad to the size at a drawn place.

    Args:
        frames: A sample.
        size: (height, width) in pixels of what comes out.
        factors: Least and greatest factor; it is drawn evenly on a logarithmic scale.
        rng: Where the draws come from.
    """
    height, width = frames.images.shape[1:3]
    factor = float(np.exp(rng.uniform(*np.log(factors))))
    scale = factor * min(size[0] / height, size[1] / width)
    there = max(round(height * scale), 1), max(round(width * scale), 1)
    scaled = rescale(frames, min(there), max(there))
    n, f, h, w = scaled.masks.shape
    places = [round(rng.random() * (want - got)) for want, got in zip(size, (h, w), strict=True)]
    (y, x), (oy, ox) = [max(p, 0) for p in places], [max(-p, 0) for p in places]
    h, w = min(h, size[0]), min(w, size[1])
    images = np.empty((f, *size, 3), np.uint8)
    images[:] = np.array(PADDING, np.uint8)
    images[:, y : y + h, x : x + w] = scaled.images[:, oy : oy + h, ox : ox + w]
    masks = np.zeros((n, f, *size), bool)
    masks[:, :, y : y + h, x : x + w] = scaled.masks[:, :, oy : oy + h, ox : ox + w]
    return _without_slivers(LabelledFrames(images, scaled.labels, masks), scaled.masks)


def paste(base: LabelledFrames, donor: LabelledFrames, rng: np.random.Generator) -> LabelledFrames:
    """Put some instances of one picture over another (copy-paste, arXiv 2012.07177).

    Args:
        base: What is pasted on.
        donor: Of the same size; each of its instances is taken with even odds, and at least one.
        rng: Where the draws come from.
    """
    if not len(donor.labels):
        return base
    taken = rng.random(len(donor.labels)) < 0.5
    taken[int(rng.integers(len(taken)))] = True
    masks = donor.masks[taken]
    over = np.asarray(masks.any(0))
    images = np.where(over[..., None], donor.images, base.images)
    left = _without_slivers(
        LabelledFrames(images, base.labels, base.masks & ~over[None]), base.masks
    )
    return LabelledFrames(
        images,
        np.concatenate([left.labels, donor.labels[taken]]),
        np.concatenate([left.masks, masks]),
    )


def recolour(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Other light: brightness, contrast, the balance of the channels, and saturation.

    Args:
        images: (F, H, W, 3) uint8.
        strength: From 0, nothing, to 1: gains of half to one and a half.
        rng: Where the draws come from.
    """
    saturation = 1 + strength * rng.uniform(-1, 0.5)
    contrast = 1 + 0.5 * strength * rng.uniform(-1, 1)
    gains = (1 + 0.4 * strength * rng.uniform(-1, 1)) * (
        1 + 0.15 * strength * rng.uniform(-1, 1, 3)
    )
    levels = np.arange(256)[:, None] * gains
    table = np.clip((levels - 128) * contrast + 128, 0, 255).astype(np.uint8)[:, None]
    out = np.empty_like(images)
    for i, image in enumerate(images):
        image = np.ascontiguousarray(image)
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        out[i] = cv2.LUT(cv2.addWeighted(image, saturation, gray, 1 - saturation, 0), table)
    return out


def _without_slivers(frames: LabelledFrames, before: np.ndarray) -> LabelledFrames:
    """Leave out instances of which hardly anything is left of what was there ``before``."""
    area = frames.masks.sum((2, 3)).max(1, initial=0)
    whole = before.sum((2, 3)).max(1, initial=0)
    kept = (area >= MIN_AREA) & (area >= MIN_SHARE * whole)
    return LabelledFrames(frames.images, frames.labels[kept], frames.masks[kept])
