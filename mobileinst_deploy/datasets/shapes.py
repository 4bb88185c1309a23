"""Clips of textured shapes that move, turn, grow, hide one another, leave and come back.

Everything about a clip follows from its seed, and every motion is a formula in time, so that any
frame can be drawn alone, in about the time it takes to read a JPEG. The masks are the pixels that
were painted: exact, of the visible part only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

from mobileinst_deploy.datasets.textures import (
    PATTERN_SIZE,
    colour_ramp,
    grain,
    pattern_bank,
    rgb,
)

#: Class names, in label order.
CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")
Split = Literal["train", "val", "test"]
MAX_OBJECTS = 6

# A person would not annotate less of an object than this, and so neither does the generator.
_MIN_VISIBLE_SHARE = 0.1
_MIN_VISIBLE_PIXELS = 16
# Sub-pixel bits of the polygon filler.
_SHIFT = 4
# Speeds below are in picture heights per frame.
_TEXELS_PER_HEIGHT = 200.0
_GRAIN_PLAY = 64


class ShapesFrame(NamedTuple):
    """One drawn frame; its K objects are those of which enough can be seen.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        masks: (K, H, W) bool, the visible pixels; no two overlap.
        labels: (K,) int64, indices into :data:`CLASSES`.
        track_ids: (K,) int64, the same for an object in every frame of its clip.
    """

    image: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    track_ids: np.ndarray


@dataclass(frozen=True)
class _Wave:
    """A quantity that swings: ``centre + swing * sin(2 pi t / period + phase)``."""

    centre: float
    swing: float
    period: float
    phase: float

    def at(self, t: float) -> float:
        return self.centre + self.swing * math.sin(2 * math.pi * t / self.period + self.phase)


@dataclass(frozen=True)
class _Object:
    """One shape: what it looks like and how it moves, in picture heights around the centre."""

    label: int
    x: _Wave
    y: _Wave
    drift: tuple[float, float, float, float]  # start x, y and velocity x, y; reflected at the rim
    radius: _Wave
    turn: _Wave
    spin: float
    stretch: float
    pattern: int
    pattern_scale: float
    pattern_offset: tuple[float, float]
    ramp: np.ndarray


@dataclass(frozen=True)
class _Camera:
    """Where the camera looks and how its picture comes out."""

    x: _Wave
    y: _Wave
    shake: _Wave
    roll: _Wave
    zoom: _Wave
    focus: _Wave
    gain: _Wave
    grain: float


class ShapesClip:
    """A clip of shapes with its masks and tracks.

    Args:
        seed: Everything follows from it; a whole number from 0 up, or a tuple of such, as
            :func:`clip_seed` gives.
        length: Number of frames; the motion itself does not depend on it.
        size: (height, width) of the frames in pixels.

    Raises:
        IndexError: From :meth:`frame`, for a frame outside the clip.
    """

    def __init__(
        self,
        seed: int | tuple[int, ...],
        length: int = 24,
        size: tuple[int, int] = (192, 320),
    ) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.length = length
        self.size = size
        aspect = size[1] / size[0]
        self._background = _Background.random(rng)
        self._camera = _random_camera(rng)
        count = int(rng.integers(1, MAX_OBJECTS + 1))
        hue = rng.random()
        self._objects = [
            _random_object(rng, hue + index / count, self._background.mean, aspect)
            for index in range(count)
        ]
        self._light = _light(rng, size)

    def __len__(self) -> int:
        return self.length

    def frames(self) -> list[ShapesFrame]:
        """All frames in order."""
        return [self.frame(t) for t in range(self.length)]

    def __iter__(self) -> Iterator[ShapesFrame]:
        return (self.frame(t) for t in range(self.length))

    def frame(self, t: int) -> ShapesFrame:
        """Draw frame ``t``, from 0 to ``length - 1``, without drawing any other."""
        if not 0 <= t < self.length:
            raise IndexError(f"frame {t} of a clip of {self.length}")
        view = self._view(t)
        image = self._background.draw(view, self.size)
        # 0 where the background shows, else 1 + the index of the object in front.
        owner = np.zeros(self.size, np.uint8)
        areas = [
            _draw(shape, view, t, index + 1, image, owner)
            for index, shape in enumerate(self._objects)
        ]
        shown = np.bincount(owner.ravel(), minlength=len(areas) + 1)[1:]
        visible = [
            index
            for index, area in enumerate(areas)
            if shown[index] >= max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_SHARE * area)
        ]
        ids = np.array(visible, np.int64)
        return ShapesFrame(
            image=self._expose(image, t),
            masks=owner[None] == (ids + 1).astype(np.uint8)[:, None, None],
            labels=np.array([self._objects[i].label for i in visible], np.int64),
            track_ids=ids,
        )

    def _view(self, t: float) -> np.ndarray:
        """The camera's (2, 3) matrix from picture heights around the centre to pixels."""
        height, width = self.size
        camera = self._camera
        zoom = height * camera.zoom.at(t)
        roll = camera.roll.at(t)
        c, s = zoom * math.cos(roll), zoom * math.sin(roll)
        shake = camera.shake.at(t)
        x, y = camera.x.at(t) + shake, camera.y.at(t) + 0.7 * shake
        return np.array(
            [
                [c, -s, (width - 1) / 2 - c * x + s * y],
                [s, c, (height - 1) / 2 - s * x - c * y],
            ]
        )

    def _expose(self, image: np.ndarray, t: int) -> np.ndarray:
        """What lens, shutter, light and sensor do to the picture."""
        camera = self._camera
        # The shutter stays open for half a frame: what moves with the camera smears.
        smear = abs(self._view(t + 0.25) - self._view(t - 0.25))[:, 2]
        kernel = [min(1 + 2 * int(distance / 2), 7) for distance in smear]
        if max(kernel) > 1:
            image = cv2.blur(image, (kernel[0], kernel[1]))
        sigma = max(camera.focus.at(t), 0.45) * self.size[0] / 192
        image = cv2.GaussianBlur(image, (0, 0), sigma)
        image = cv2.multiply(image, self._light, scale=camera.gain.at(t) / 128)
        if camera.grain:
            # Every frame sees another piece of the noise.
            height, width = self.size
            noise = grain(camera.grain, height + _GRAIN_PLAY, width + _GRAIN_PLAY)
            top, left = t * 29 % _GRAIN_PLAY, t * 41 % _GRAIN_PLAY
            image = cv2.add(image, noise[top : top + height, left : left + width], dtype=cv2.CV_8U)
        return image


def clip_seed(split: Split, index: int) -> tuple[int, int]:
    """The seed of clip ``index``, from 0 up, of a split; no two splits share a clip."""
    return get_args(Split).index(split), index


@dataclass(frozen=True)
class _Background:
    """Two patterns mixed and coloured, seen by the camera as a wall behind the objects."""

    patterns: tuple[int, int]
    mix: float
    scale: float
    turn: float
    ramp: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> _Background:
        bank = pattern_bank()
        # Muted colours, so that the vivid objects stand out from any pattern.
        base = rng.random()
        colours = np.stack(
            [
                rgb(base + rng.uniform(-0.15, 0.15), rng.uniform(0, 0.35), value)
                for value in rng.permutation([0.25, 0.45, 0.65]) + rng.uniform(-0.15, 0.2)
            ]
        )
        return cls(
            patterns=(int(rng.integers(len(bank))), int(rng.integers(3))),
            mix=rng.uniform(0.2, 0.7),
            scale=rng.uniform(0.6, 1.3),
            turn=rng.uniform(0, 2 * math.pi),
            ramp=colour_ramp(colours),
        )

    @property
    def mean(self) -> np.ndarray:
        """Mean colour (3,) in 0 to 255."""
        mean: np.ndarray = self.ramp[:, 0].mean(0)
        return mean

    def draw(self, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        # From pixels back to heights around the centre, and from there to texels.
        scale = self.scale * _TEXELS_PER_HEIGHT
        c, s = scale * math.cos(self.turn), scale * math.sin(self.turn)
        middle = PATTERN_SIZE / 2
        texels = np.array([[c, -s, middle], [s, c, middle]])
        matrix = _chain(texels, cv2.invertAffineTransform(view))
        first, second = (_warp(pattern_bank()[pattern], matrix, size) for pattern in self.patterns)
        return _colour(cv2.addWeighted(first, self.mix, second, 1 - self.mix, 0), self.ramp)


def _draw(
    shape: _Object, view: np.ndarray, t: int, number: int, image: np.ndarray, owner: np.ndarray
) -> float:
    """Paint one object over ``image`` and ``owner``; its whole area in pixels, seen or not."""
    height, width = owner.shape
    matrix = _chain(view, _placement(shape, t, width / height))
    outlines = [o @ matrix[:, :2].T + matrix[:, 2] for o in _outlines()[shape.label]]
    area = abs(np.linalg.det(matrix[:, :2])) * _areas()[shape.label]
    low = np.floor(outlines[0].min(0)).astype(int) - 1
    high = np.ceil(outlines[0].max(0)).astype(int) + 2
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (width, height))
    if left >= right or top >= bottom:
        return float(area)
    window = np.s_[top:bottom, left:right]
    offset = np.array([left, top], np.float64)
    stencil = np.zeros((bottom - top, right - left), np.uint8)
    points = [np.rint((o - offset) * 2**_SHIFT).astype(np.int32) for o in outlines]
    cv2.fillPoly(stencil, points, 1, cv2.LINE_8, _SHIFT)
    shifted = matrix - np.array([[0, 0, left], [0, 0, top]])
    scale = shape.pattern_scale * _TEXELS_PER_HEIGHT / 3
    texels = np.array([[scale, 0, shape.pattern_offset[0]], [0, scale, shape.pattern_offset[1]]])
    grey = _warp(
        pattern_bank()[shape.pattern],
        _chain(texels, cv2.invertAffineTransform(shifted)),
        stencil.shape,
    )
    cv2.copyTo(_colour(grey, shape.ramp), stencil, image[window])
    owner[window][stencil.view(bool)] = number
    return float(area)


def _placement(shape: _Object, t: int, aspect: float) -> np.ndarray:
    """The object's (2, 3) matrix from its own unit size to picture heights."""
    radius = shape.radius.at(t)
    x0, y0, vx, vy = shape.drift
    # The rim lies outside the picture: what drifts leaves it and comes back.
    x = shape.x.at(t) + _reflect(x0 + vx * t, aspect / 2 + radius)
    y = shape.y.at(t) + _reflect(y0 + vy * t, 0.5 + radius)
    angle = shape.turn.at(t) + shape.spin * t
    c, s = math.cos(angle), math.sin(angle)
    a, b = radius * shape.stretch, radius / shape.stretch
    return np.array([[a * c, -b * s, x], [a * s, b * c, y]])


def _reflect(position: float, limit: float) -> float:
    """Fold the line into [-limit, limit], as between two mirrors."""
    phase = (position + limit) % (4 * limit)
    return (phase if phase < 2 * limit else 4 * limit - phase) - limit


def _random_object(
    rng: np.random.Generator, hue: float, background: np.ndarray, aspect: float
) -> _Object:
    radius = 0.5 * math.exp(rng.uniform(math.log(0.16), math.log(0.5)))
    x, y = rng.uniform(-aspect / 2, aspect / 2) * 0.85, rng.uniform(-0.5, 0.5) * 0.85
    sway_x = _wave(rng, 0, rng.uniform(0, 0.12), (30, 90))
    sway_y = _wave(rng, 0, rng.uniform(0, 0.12), (30, 90))
    velocity = (0.0, 0.0)
    kind = rng.choice(3, p=(0.45, 0.35, 0.2))
    if kind == 1:  # crosses the picture
        speed, way = rng.uniform(0.006, 0.03), rng.uniform(0, 2 * math.pi)
        velocity = (speed * math.cos(way), speed * math.sin(way))
    elif kind == 2:  # looks in from one side, again and again
        x = math.copysign(aspect / 2, x)
        sway_x = _wave(rng, 0, rng.uniform(1, 1.5) * radius, (20, 44))
    return _Object(
        label=int(rng.integers(len(CLASSES))),
        x=sway_x,
        y=sway_y,
        drift=(x, y, *velocity),
        radius=_wave(rng, radius, radius * rng.uniform(0, 0.25), (24, 80)),
        turn=_wave(rng, rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.5), (24, 80)),
        spin=rng.uniform(-0.06, 0.06) if rng.random() < 0.5 else 0.0,
        stretch=math.exp(rng.uniform(-0.14, 0.14)),
        pattern=int(rng.integers(len(pattern_bank()))),
        pattern_scale=rng.uniform(0.5, 1.6),
        pattern_offset=(rng.uniform(150, 362), rng.uniform(150, 362)),
        ramp=_vivid_ramp(rng, hue, background),
    )


def _vivid_ramp(rng: np.random.Generator, hue: float, background: np.ndarray) -> np.ndarray:
    """Two strong colours of one hue, bright over a dark background and dark over a bright one."""
    hue += rng.uniform(-0.06, 0.06)
    saturation = rng.uniform(0.65, 1)
    values = rng.uniform(0.75, 1), rng.uniform(0.45, 0.7)
    if background.mean() > 140:
        values = rng.uniform(0.55, 0.8), rng.uniform(0.2, 0.4)
    other = hue + rng.uniform(-0.08, 0.08)
    return colour_ramp(np.stack([rgb(hue, saturation, values[0]), rgb(other, 1, values[1])]))


def _random_camera(rng: np.random.Generator) -> _Camera:
    still = rng.random() < 0.3
    pan = 0.0 if still else rng.uniform(0.02, 0.2)
    shaky = 0.0 if still else rng.uniform(0, 0.006)
    return _Camera(
        x=_wave(rng, 0, pan, (50, 120)),
        y=_wave(rng, 0, pan / 2, (50, 120)),
        shake=_wave(rng, 0, shaky, (3, 9)),
        roll=_wave(rng, 0, 0 if still else rng.uniform(0, 0.08), (40, 100)),
        zoom=_wave(rng, 1, 0 if still else rng.uniform(0, 0.1), (40, 100)),
        focus=_wave(rng, 0.5, rng.uniform(0, 1.2), (30, 90)),
        gain=_wave(rng, 1, rng.uniform(0, 0.25), (20, 90)),
        grain=(0.0, 1.5, 3.0, 5.0)[int(rng.integers(4))],
    )


def _light(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Light that falls off across the picture, (H, W, 3) uint8 around 128 = unchanged."""
    # A plane is drawn small and stretched, which costs a tenth.
    steps = np.linspace(-1, 1, 16)
    plane = 1 + steps * rng.uniform(-0.3, 0.3) + steps[:, None] * rng.uniform(-0.3, 0.3)
    light = 128 * plane[..., None] * (1 + rng.uniform(-0.06, 0.06, 3))
    return cv2.resize(np.clip(light, 30, 255).astype(np.uint8), (size[1], size[0]))


def _wave(
    rng: np.random.Generator, centre: float, swing: float, periods: tuple[float, float]
) -> _Wave:
    return _Wave(centre, swing, rng.uniform(*periods), rng.uniform(0, 2 * math.pi))


@cache
def _outlines() -> tuple[tuple[np.ndarray, ...], ...]:
    """Each class's outlines (n, 2) around the origin in unit size, the outer one first."""
    square = 0.85 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    star = _circle(10, 1.15)
    star[1::2] *= 0.45
    a, b = 0.33, 1.05
    cross = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    cross += [(-x, -y) for x, y in cross]
    return (
        (_circle(48, 1.0),),
        (square,),
        (_circle(3, 1.15),),
        (star,),
        (_circle(48, 1.0), _circle(40, 0.52)),
        (np.array(cross),),
    )


@cache
def _areas() -> tuple[float, ...]:
    """Area of each class in unit size: its outer outline less its hole."""
    areas = []
    for outer, *holes in _outlines():
        areas.append(_area(outer) - sum(_area(hole) for hole in holes))
    return tuple(areas)


def _area(outline: np.ndarray) -> float:
    x, y = outline.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _circle(points: int, radius: float) -> np.ndarray:
    angle = np.arange(points) * (2 * math.pi / points) - math.pi / 2
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _chain(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix that applies ``first``, then ``second``."""
    matrix: np.ndarray = second[:, :2] @ first
    matrix[:, 2] += second[:, 2]
    return matrix


def _warp(pattern: np.ndarray, matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The pattern at ``matrix`` applied to every pixel of a picture of ``size``."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        pattern, matrix, (size[1], size[0]), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )


def _colour(grey: np.ndarray, ramp: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap(grey, ramp)
