"""Clips of people and animals cut out of photographs, that move over another photograph.

No public video has masks of them under free terms; photographs with masks do. Instances are cut out
by their masks and move, grow, turn, bend, hide one another, leave and come back, before a camera
that moves too. The background's own instances move with it and are tracks like the others. As with
:mod:`.shapes`, all of a clip follows from its seed, any frame can be made alone, and the masks are
the visible pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.scene import Wave
from mobileinst_deploy.data.shapes import MadeClip, ShapesFrame, Split, clip_seed
from mobileinst_deploy.data.textures import grain

#: What is cut out smaller than this, in pixels of its photograph, is a blur when it is enlarged.
MIN_AREA = 900
MAX_OBJECTS = 5
_MIN_VISIBLE_SHARE = 0.1
_MIN_VISIBLE_PIXELS = 64
_GRAIN_PLAY = 64
_TRIES = 50


@dataclass(frozen=True)
class Cutout:
    """An instance cut out of its photograph.

    Attributes:
        image: (h, w, 3) uint8, RGB.
        alpha: (h, w) uint8: 255 inside; the edge is soft.
        label: Class index.
    """

    image: np.ndarray
    alpha: np.ndarray
    label: int


@dataclass(frozen=True)
class Mover:
    """A cut-out and how it moves; lengths are shares of the picture's height.

    Attributes:
        cutout: What moves.
        x: Of its centre, from the picture's centre to the right.
        y: The same downwards.
        drift: Added to both per frame.
        height: Its own.
        turn: In radians.
        bend: Sideways shift of its upper edge against the lower one, as a share of its height.
        mirrored: Whether it is seen from the other side.
    """

    cutout: Cutout
    x: Wave
    y: Wave
    drift: tuple[float, float]
    height: Wave
    turn: Wave
    bend: Wave
    mirrored: bool


@dataclass(frozen=True)
class Cutouts:
    """Clips of the instances of one set of photographs.

    Attributes:
        pictures: What backgrounds and cut-outs are taken from, so that clips of training and of
            validation pictures share nothing.
        split: Of the seeds.
        first: Index of the first clip within the split.
        clips: Number of clips.
        length: Frames of each.
        size: (height, width) in pixels.
    """

    pictures: AnnotatedSet
    split: Split
    first: int
    clips: int
    length: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.clips

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return self.pictures.classes

    def clip(self, index: int) -> CutoutClip:
        """Clip ``index``, from 0 to ``clips - 1``.

        Raises:
            DatasetError: The pictures hold nothing that can be cut out.
            MediaError: A picture cannot be read.
        """
        seed = clip_seed(self.split, self.first + index)
        return CutoutClip(self.pictures, seed, self.length, self.size)


class CutoutClip(MadeClip):
    """A clip with its masks and tracks.

    Args:
        pictures: What backgrounds and cut-outs are taken from.
        seed: Everything else follows from it.
        length: Number of frames; the motion itself does not depend on it.
        size: (height, width) of the frames in pixels.

    Raises:
        DatasetError: The pictures hold nothing that can be cut out.
        MediaError: A picture cannot be read.
        IndexError: From :meth:`frame`, for a frame outside the clip.
    """

    def __init__(
        self,
        pictures: AnnotatedSet,
        seed: int | tuple[int, ...],
        length: int = 36,
        size: tuple[int, int] = (256, 384),
    ) -> None:
        self.length = length
        self.size = size
        self._rng = rng = np.random.default_rng(seed)
        self._background, self._owner, self._labels = _background(pictures, rng)
        count = int(rng.integers(1, MAX_OBJECTS + 1))
        # Far ones first, so that near ones, which are larger, pass in front.
        heights = np.sort(np.exp(rng.uniform(math.log(0.2), math.log(0.95), count)))
        self._movers = [
            _mover(_cutout(pictures, rng), float(height), rng, size[1] / size[0])
            for height in heights
        ]
        self._zoom = _wave(rng, rng.uniform(1.1, 1.5), 0.1)
        self._pan = (_wave(rng, 0.0, 0.12), _wave(rng, 0.0, 0.08))
        self._roll = _wave(rng, 0.0, 0.04)
        self._shake = Wave(0.0, float(rng.uniform(0, 0.012)), float(rng.uniform(3, 7)), 0.0)
        self._gain = _wave(rng, rng.uniform(0.75, 1.2), 0.12)
        self._blur = _wave(rng, rng.uniform(0.0, 0.6), 0.5)
        self._quality = int(rng.integers(35, 96))
        self._grain = float(rng.integers(0, 5))

    def _make(self, t: int) -> ShapesFrame:
        view = self._view(t)
        height, width = self.size
        h, w = self._background.shape[:2]
        # The photograph covers the picture, about its centre.
        cover = max(width / w, height / h) / height
        matrix = _chain(view, np.array([[cover, 0, -cover * w / 2], [0, cover, -cover * h / 2]]))
        image = cv2.warpAffine(
            self._background, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
        )
        owner = cv2.warpAffine(self._owner, matrix, (width, height), flags=cv2.INTER_NEAREST)
        static = len(self._labels)
        whole = [int((self._owner == i + 1).sum() * _scale(matrix)) for i in range(static)]
        for number, mover in enumerate(self._movers, start=static + 1):
            whole.append(_paint(mover, view, t, image, owner, number))
        labels = [*self._labels, *(mover.cutout.label for mover in self._movers)]
        shown = np.bincount(owner.ravel(), minlength=len(labels) + 1)[1:]
        visible = [
            i
            for i, area in enumerate(whole)
            if shown[i] >= max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_SHARE * area)
        ]
        ids = np.array(visible, np.int64)
        return ShapesFrame(
            self._expose(image, t),
            owner[None] == (ids + 1).astype(np.uint8)[:, None, None],
            np.array([labels[i] for i in visible], np.int64),
            ids,
        )

    def _view(self, t: float) -> np.ndarray:
        """The camera's (2, 3) matrix from picture heights around the centre to pixels."""
        height, width = self.size
        zoom, roll = height * self._zoom.at(t), self._roll.at(t)
        shake = self._shake.at(t)
        x, y = self._pan[0].at(t) + shake, self._pan[1].at(t) + 0.7 * shake
        c, s = zoom * math.cos(roll), zoom * math.sin(roll)
        return np.array(
            [
                [c, -s, (width - 1) / 2 - c * x + s * y],
                [s, c, (height - 1) / 2 - s * x - c * y],
            ]
        )

    def _expose(self, image: np.ndarray, t: int) -> np.ndarray:
        """What lens, shutter, light, sensor and codec do to the picture."""
        smear = abs(self._view(t + 0.25) - self._view(t - 0.25))[:, 2]
        kernel = [min(1 + 2 * int(distance / 2), 9) for distance in smear]
        if max(kernel) > 1:
            image = cv2.blur(image, (kernel[0], kernel[1]))
        sigma = self._blur.at(t) * self.size[0] / 256
        if sigma > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        image = cv2.convertScaleAbs(image, alpha=self._gain.at(t))
        if self._grain:
            height, width = self.size
            noise = grain(self._grain, height + _GRAIN_PLAY, width + _GRAIN_PLAY)
            top, left = t * 29 % _GRAIN_PLAY, t * 41 % _GRAIN_PLAY
            image = cv2.add(image, noise[top : top + height, left : left + width], dtype=cv2.CV_8U)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _background(
    pictures: AnnotatedSet, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """A photograph, the number from 1 up of each pixel's instance or 0, and the labels of those."""
    for _ in range(_TRIES):
        sample = pictures.sample(int(rng.integers(len(pictures))))
        if not sample.crowd.any() and sample.image.shape[1] >= sample.image.shape[0]:
            break
    owner = np.zeros(sample.image.shape[:2], np.uint8)
    for number, mask in enumerate(sample.masks, start=1):
        owner[mask] = number
    return sample.image, owner, sample.labels.tolist()


def _cutout(pictures: AnnotatedSet, rng: np.random.Generator) -> Cutout:
    """An instance by lot, large enough to be looked at."""
    for _ in range(_TRIES):
        sample = pictures.sample(int(rng.integers(len(pictures))))
        area = sample.masks.sum((1, 2))
        fit = np.flatnonzero(~sample.crowd & (area >= MIN_AREA))
        if len(fit):
            which = int(rng.choice(fit))
            mask = sample.masks[which]
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            alpha = cv2.copyMakeBorder(
                mask[window].astype(np.uint8) * 255, 2, 2, 2, 2, cv2.BORDER_CONSTANT
            )
            image = cv2.copyMakeBorder(sample.image[window], 2, 2, 2, 2, cv2.BORDER_REPLICATE)
            # The outermost pixels of a mask are half background.
            alpha = cv2.GaussianBlur(cv2.erode(alpha, np.ones((2, 2), np.uint8)), (3, 3), 0)
            return Cutout(image, alpha, int(sample.labels[which]))
    raise DatasetError(
        f"{_TRIES} pictures in a row hold no instance of {MIN_AREA} pixels",
        "Give pictures with larger instances",
    )


def _mover(cutout: Cutout, height: float, rng: np.random.Generator, aspect: float) -> Mover:
    # A third walk out of the picture and back.
    reach = rng.uniform(0.7, 1.1) if rng.random() < 0.33 else rng.uniform(0.05, 0.35)
    period = float(rng.uniform(25, 90))
    phase = float(rng.uniform(0, 2 * math.pi))
    x = Wave(float(rng.uniform(-0.35, 0.35)) * aspect, float(reach) * aspect, period, phase)
    return Mover(
        cutout,
        x,
        _wave(rng, rng.uniform(-0.25, 0.3), 0.12),
        (float(rng.normal(0, 0.004)), float(rng.normal(0, 0.002))),
        Wave(height, height * float(rng.uniform(0, 0.25)), float(rng.uniform(30, 90)), phase),
        _wave(rng, rng.normal(0, 0.06), 0.1),
        _wave(rng, 0.0, 0.12),
        bool(rng.random() < 0.5),
    )


def _wave(rng: np.random.Generator, centre: float, swing: float) -> Wave:
    return Wave(
        float(centre),
        float(swing * rng.random()),
        float(rng.uniform(20, 80)),
        float(rng.uniform(0, 2 * math.pi)),
    )


def _paint(
    mover: Mover, view: np.ndarray, t: int, image: np.ndarray, owner: np.ndarray, number: int
) -> int:
    """Paint a cut-out over ``image`` and ``owner``; its whole area in pixels, seen or not."""
    h, w = mover.cutout.alpha.shape
    scale = mover.height.at(t) / h
    turn, bend = mover.turn.at(t), mover.bend.at(t)
    c, s = scale * math.cos(turn), scale * math.sin(turn)
    side = -1 if mover.mirrored else 1
    # Texels about the cut-out's centre, bent and mirrored, then turned and placed.
    local = np.array([[side, bend, -side * w / 2 - bend * h / 2], [0, 1, -h / 2]])
    x = mover.x.at(t) + mover.drift[0] * t
    y = mover.y.at(t) + mover.drift[1] * t
    matrix = _chain(view, _chain(np.array([[c, -s, x], [s, c, y]]), local))
    size = owner.shape[1], owner.shape[0]
    alpha = cv2.warpAffine(mover.cutout.alpha, matrix, size)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if len(rows):
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        over = cv2.warpAffine(mover.cutout.image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        share = alpha[window].astype(np.float32)[..., None] / 255
        image[window] = image[window] + (over[window] - image[window].astype(np.float32)) * share
        owner[window][alpha[window] > 127] = number
    return int((mover.cutout.alpha > 127).sum() * _scale(matrix))


def _scale(matrix: np.ndarray) -> float:
    """By how much a matrix enlarges areas."""
    return abs(float(np.linalg.det(matrix[:, :2])))


def _chain(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix of ``inner``, then ``outer``."""
    product: np.ndarray = (np.vstack([outer, [0, 0, 1]]) @ np.vstack([inner, [0, 0, 1]]))[:2]
    return product
