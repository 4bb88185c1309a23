"""Clips of textured shapes that move, turn, grow, hide one another, leave and come back.

Everything about a clip follows from its seed, and every motion is a formula in time, so that any
frame can be drawn alone, in about the time it takes to read a JPEG. The masks are the pixels that
were painted: exact, of the visible part only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

from mobileinst_deploy.data.scene import (
    CLASSES,
    Background,
    Shape,
    areas,
    outlines,
    placement,
    random_scene,
)
from mobileinst_deploy.data.textures import PATTERN_SIZE, grain, pattern_bank

__all__ = ["CLASSES", "MadeClip", "ShapesClip", "ShapesFrame", "Split", "clip_seed"]

Split = Literal["train", "val", "test"]

# A person would not annotate less of an object than this, and so neither does the generator.
_MIN_VISIBLE_SHARE = 0.1
_MIN_VISIBLE_PIXELS = 16
# Sub-pixel bits of the polygon filler.
_SHIFT = 4
# How finely patterns are sampled.
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


class MadeClip(ABC):
    """A clip whose frames are made on demand, each by itself.

    Attributes:
        length: Number of frames.
        size: (height, width) of the frames in pixels.
    """

    length: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[ShapesFrame]:
        return (self.frame(t) for t in range(self.length))

    def frames(self) -> list[ShapesFrame]:
        """All frames in order."""
        return list(self)

    def frame(self, t: int) -> ShapesFrame:
        """Make frame ``t``, from 0 to ``length - 1``, without making any other.

        Raises:
            IndexError: There is no such frame.
        """
        if not 0 <= t < self.length:
            raise IndexError(f"frame {t} of a clip of {self.length}")
        return self._make(t)

    @abstractmethod
    def _make(self, t: int) -> ShapesFrame: ...


class ShapesClip(MadeClip):
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
        self._scene = random_scene(rng, size[1] / size[0])
        self._light = _light(rng, size)

    def _make(self, t: int) -> ShapesFrame:
        view = self._view(t)
        image = _draw_background(self._scene.background, view, self.size)
        # 0 where the background shows, else 1 + the index of the object in front.
        owner = np.zeros(self.size, np.uint8)
        whole = [
            _draw_shape(shape, view, t, index + 1, image, owner)
            for index, shape in enumerate(self._scene.objects)
        ]
        shown = np.bincount(owner.ravel(), minlength=len(whole) + 1)[1:]
        visible = [
            index
            for index, area in enumerate(whole)
            if shown[index] >= max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_SHARE * area)
        ]
        ids = np.array(visible, np.int64)
        return ShapesFrame(
            image=self._expose(image, t),
            masks=owner[None] == (ids + 1).astype(np.uint8)[:, None, None],
            labels=np.array([self._scene.objects[i].label for i in visible], np.int64),
            track_ids=ids,
        )

    def _view(self, t: float) -> np.ndarray:
        """The camera's (2, 3) matrix from picture heights around the centre to pixels."""
        height, width = self.size
        camera = self._scene.camera
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
        camera = self._scene.camera
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


def _draw_background(background: Background, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The background as the camera sees it, (H, W, 3) uint8."""
    # From pixels back to heights around the centre, and from there to texels.
    scale = background.scale * _TEXELS_PER_HEIGHT
    c, s = scale * math.cos(background.turn), scale * math.sin(background.turn)
    middle = PATTERN_SIZE / 2
    texels = np.array([[c, -s, middle], [s, c, middle]])
    matrix = _chain(texels, cv2.invertAffineTransform(view))
    first, second = (
        _warp(pattern_bank()[pattern], matrix, size) for pattern in background.patterns
    )
    return _colour(
        cv2.addWeighted(first, background.mix, second, 1 - background.mix, 0), background.ramp
    )


def _draw_shape(
    shape: Shape, view: np.ndarray, t: int, number: int, image: np.ndarray, owner: np.ndarray
) -> float:
    """Paint one object over ``image`` and ``owner``; its whole area in pixels, seen or not."""
    height, width = owner.shape
    matrix = _chain(view, placement(shape, t, width / height))
    edges = [o @ matrix[:, :2].T + matrix[:, 2] for o in outlines()[shape.label]]
    area = abs(np.linalg.det(matrix[:, :2])) * areas()[shape.label]
    low = np.floor(edges[0].min(0)).astype(int) - 1
    high = np.ceil(edges[0].max(0)).astype(int) + 2
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (width, height))
    if left >= right or top >= bottom:
        return float(area)
    window = np.s_[top:bottom, left:right]
    offset = np.array([left, top], np.float64)
    stencil = np.zeros((bottom - top, right - left), np.uint8)
    points = [np.rint((o - offset) * 2**_SHIFT).astype(np.int32) for o in edges]
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


def _light(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Light that falls off across the picture, (H, W, 3) uint8 around 128 = unchanged."""
    # A plane is drawn small and stretched, which costs a tenth.
    steps = np.linspace(-1, 1, 16)
    plane = 1 + steps * rng.uniform(-0.3, 0.3) + steps[:, None] * rng.uniform(-0.3, 0.3)
    light = 128 * plane[..., None] * (1 + rng.uniform(-0.06, 0.06, 3))
    return cv2.resize(np.clip(light, 30, 255).astype(np.uint8), (size[1], size[0]))


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
