"""What is drawn from clips, how it is varied, and how a batch is put together, by the seed alone.

Sample k of a run depends on the seed and on k alone. So a resumed run, or one with another number
of workers, sees what an undisturbed one would have seen, and no sampler has state to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mobileinst_deploy.core.config import SIZE_MULTIPLE
from mobileinst_deploy.core.errors import DatasetError, MediaError
from mobileinst_deploy.core.picture_rules import PADDING
from mobileinst_deploy.media.letterbox import turned_for
from mobileinst_deploy.training.augment import PASTE_ZOOM, LabelledFrames, paste, recolour, vary
from mobileinst_deploy.training.config import DataConfig, StageConfig
from mobileinst_deploy.training.objective import Target

MAX_UNREADABLE = 20
#: Tells the draw of a batch's orientation from those of samples.
_ORIENTATION = 0x0EA7


class ClipSource(Protocol):
    """Clips to draw from. A set of pictures is a source of clips of one frame."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        ...

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def length(self, clip: int) -> int:
        """Frames of a clip."""
        ...

    def upright(self, clip: int) -> bool:
        """Whether its pictures are higher than wide."""
        ...

    def read(self, clip: int, frames: Sequence[int]) -> LabelledFrames:
        """Some frames of a clip.

        Raises:
            MediaError: A picture cannot be read.
        """
        ...


class Batch(NamedTuple):
    """What one training step takes.

    Attributes:
        images: (B, 3, H, W) uint8; with L pairs (B + L, 3, H, W): their earlier frames, single
            pictures, their later frames.
        targets: B targets, of all but the later frames.
        later: L targets of the later frames, or None where all are pictures.
        unreadable: Samples that were drawn but could not be read, and were replaced.
        cell: What masks are multiples of: as a worker hands them over, uint8 numbers of pixels out
            of this many, which is a quarter of the bytes to move; 1 once they are shares.
    """

    images: Tensor
    targets: list[Target]
    later: list[Target] | None
    unreadable: int
    cell: int = 1

    def to(self, device: torch.device) -> Batch:
        """The same on another device, its masks as shares of cells."""

        def move(targets: list[Target]) -> list[Target]:
            return [
                Target(
                    t.labels.to(device, non_blocking=True),
                    t.masks.to(device, non_blocking=True).float() / self.cell,
                )
                for t in targets
            ]

        later = None if self.later is None else move(self.later)
        images = self.images.to(device, non_blocking=True)
        return Batch(images, move(self.targets), later, self.unreadable)


class Sample(NamedTuple):
    """One drawn picture or pair, and how many draws before it could not be read."""

    frames: LabelledFrames
    unreadable: int


class Pool(NamedTuple):
    """Clips to draw from: all of a source, or some of them.

    Attributes:
        source: Theirs.
        clips: (n,) their numbers; None: all.
        weights: (n,) how often each is drawn against the others, summed up to it; None: all alike.
    """

    source: ClipSource
    clips: np.ndarray | None = None
    weights: np.ndarray | None = None

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a clip."""
        if self.weights is not None:
            place = np.searchsorted(self.weights, rng.random() * self.weights[-1], side="right")
            drawn = int(min(place, len(self.weights) - 1))
        else:
            drawn = int(rng.integers(len(self.source if self.clips is None else self.clips)))
        return drawn if self.clips is None else int(self.clips[drawn])


def _weight(pool: Pool) -> float:
    """How often some clip of a pool is drawn, against other pools of the source."""
    if pool.weights is not None:
        return float(pool.weights[-1]) if len(pool.weights) else 0.0
    return float(len(pool.source if pool.clips is None else pool.clips))


@dataclass(frozen=True)
class Samples(Dataset[Sample]):
    """The endless sequence of samples of one stage.

    Args:
        source: Where clips come from.
        config: How they are varied.
        stage: Its kind says whether a sample is a picture or a pair; its sizes are drawn from.
        seed: Of the draws: the run's, and the stage's number so that no stage repeats another.
        length: How many there are, for the loader's sake.
        stills: Where single pictures beside pairs come from; None: from the source.
        weights: (clips,) how often each clip of the source is drawn against the others; None: all
            alike. Stills of their own are.
    """

    source: ClipSource
    config: DataConfig
    stage: StageConfig
    seed: tuple[int, int]
    length: int
    stills: ClipSource | None = None
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``, the same at every call.

        Raises:
            DatasetError: Picture after picture cannot be read.
        """
        rng = np.random.default_rng([*self.seed, index])
        stage, source = self.stage, self.source
        if index % stage.samples >= stage.batch:
            stage, source = stage.on_pictures() or stage, self.stills or source
        pool = self._pool(source, index // self.stage.samples)
        for unreadable in range(MAX_UNREADABLE):
            clip = pool.draw(rng)
            try:
                frames = source.read(clip, self._choose(rng, stage, source.length(clip)))
            except MediaError as error:
                last = error
                continue
            return Sample(self._varied(frames, stage, pool, rng), unreadable)
        raise DatasetError(
            f"{MAX_UNREADABLE} pictures in a row cannot be read, the last because {last.cause}",
            "Check the pictures' folder",
        )

    def _pool(self, source: ClipSource, batch: int) -> Pool:
        """What the samples of a batch are drawn from; with ``config.upright``, of one orientation.

        That depends on the seed and on the batch's number alone, as a sample does on its own, and
        each orientation is as frequent as its clips.
        """
        pools = self._pools[source is not self.source]
        if not self.config.upright:
            return pools[0]
        rng = np.random.default_rng([*self.seed, batch, _ORIENTATION])
        lying, upright = (_weight(pool) for pool in self._pools[0][1:])
        stands = rng.random() * (lying + upright) < upright
        # Single pictures beside pairs may be of one orientation only.
        return pools[2 if stands else 1] if _weight(pools[2 if stands else 1]) else pools[0]

    @cached_property
    def _pools(self) -> list[tuple[Pool, ...]]:
        """Of the source and of the stills: all clips, those that lie, and those that stand."""
        found = []
        for source in (self.source, self.stills or self.source):
            weights = self.weights if source is self.source else None
            pools = [Pool(source, None, None if weights is None else weights.cumsum())]
            if self.config.upright:
                stand = np.array([source.upright(clip) for clip in range(len(source))], bool)
                for clips in (np.flatnonzero(~stand), np.flatnonzero(stand)):
                    each = None if weights is None else weights[clips].cumsum()
                    pools.append(Pool(source, clips, each))
            found.append(tuple(pools))
        return found

    def _turned(self, stage: StageConfig, frames: LabelledFrames) -> StageConfig:
        """The stage, its size turned for upright pictures where the recipe asks for that."""
        if not (self.config.upright and len(stage.size) == 2):
            return stage
        height, width = stage.size
        return replace(stage, size=turned_for((height, width), frames.images.shape[1:3]))

    def _varied(
        self,
        frames: LabelledFrames,
        stage: StageConfig,
        pool: Pool,
        rng: np.random.Generator,
    ) -> LabelledFrames:
        config, stage = self.config, self._turned(stage, frames)
        frames = vary(frames, config.flip, stage, rng)
        if stage.kind == "image" and config.paste:
            for _ in range(int(rng.integers(config.paste + 1))):
                frames = paste(frames, self._donor(stage, pool, rng), rng)
        if config.colour:
            frames = frames._replace(images=recolour(frames.images, config.colour, rng))
        return frames

    def _donor(self, stage: StageConfig, pool: Pool, rng: np.random.Generator) -> LabelledFrames:
        """A picture to paste from, itself varied; one that cannot be read has nothing to give."""
        clip, source = pool.draw(rng), pool.source
        try:
            frames = source.read(clip, [int(rng.integers(source.length(clip)))])
        except MediaError:
            none = np.zeros((0, 1, *stage.size), bool)
            return LabelledFrames(
                np.zeros((1, *stage.size, 3), np.uint8), np.zeros(0, np.int64), none
            )
        return vary(frames, self.config.flip, replace(stage, zoom=PASTE_ZOOM), rng)

    def _choose(self, rng: np.random.Generator, stage: StageConfig, length: int) -> list[int]:
        first = int(rng.integers(length))
        if stage.kind == "image":
            return [first]
        reach = min(self.config.max_gap, length - 1)
        low, high = max(first - reach, 0), min(first + reach, length - 1)
        other = int(rng.integers(low, high)) if high > low else first
        if high > low and other >= first:
            other += 1  # skips the frame itself, in either direction of time
        return [first, other]


@dataclass(frozen=True)
class Collate:
    """Pad samples right and bottom to one size and take masks to the loss's stride."""

    mask_stride: int

    def __call__(self, samples: list[Sample]) -> Batch:
        """Samples, pairs before pictures, to a batch."""
        cell = self.mask_stride**2
        shapes = [s.frames.images.shape for s in samples]
        pairs = sum(shape[0] == 2 for shape in shapes)
        h, w = (-(-max(s[i] for s in shapes) // SIZE_MULTIPLE) * SIZE_MULTIPLE for i in (1, 2))
        images = np.empty((len(samples) + pairs, 3, h, w), np.uint8)
        targets: list[Target] = []
        # All first frames, then the second ones.
        drawn = [(s.frames, 0) for s in samples] + [(s.frames, 1) for s in samples[:pairs]]
        for i, (frames, j) in enumerate(drawn):
            height, width = frames.images.shape[1:3]
            picture = np.ascontiguousarray(frames.images[j])
            for channel, (into, padding) in enumerate(zip(images[i], PADDING, strict=True)):
                # Ten times as fast as numpy's copy of a transposed picture.
                cv2.extractChannel(picture, channel, into[:height, :width])
                into[:height, width:] = into[height:] = padding
            labels = torch.from_numpy(np.ascontiguousarray(frames.labels, np.int64))
            pixels = cell_pixels(frames.masks[:, j], (h, w), self.mask_stride)
            targets.append(Target(labels, torch.from_numpy(pixels)))
        later = targets[len(samples) :] if pairs else None
        return Batch(
            torch.from_numpy(images),
            targets[: len(samples)],
            later,
            sum(s.unreadable for s in samples),
            cell,
        )


def cell_pixels(masks: np.ndarray, size: tuple[int, int], stride: int) -> np.ndarray:
    """How many pixels of each stride x stride cell a mask covers.

    Args:
        masks: (n, h, w) bool.
        size: (H, W), multiples of ``stride``, at least (h, w); the rest is outside.
        stride: Side of a cell in pixels.

    Returns:
        (n, H / stride, W / stride) uint8, 0 to stride * stride.
    """
    n, h, w = masks.shape
    cells = np.zeros((n, size[0] // stride, size[1] // stride), np.uint8)
    # Only the rows and columns of cells that the picture reaches; the rest stays outside.
    rows, columns = -(-h // stride), -(-w // stride)
    padded = np.zeros((rows * stride, columns * stride), np.uint8)
    for mask, cell in zip(masks, cells, strict=True):
        # The mean of a cell whose pixels each weigh stride * stride is their number: a whole one.
        np.multiply(mask.view(np.uint8), stride * stride, out=padded[:h, :w])
        cell[:rows, :columns] = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    return cells
