"""The clips that can be trained on: drawn shapes, cut-outs, COCO's pictures, YouTube-VIS's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.picture_rules import PADDING
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.annotations import Catalogue
from mobileinst_deploy.data.cutouts import Cutouts
from mobileinst_deploy.data.samples import Sample
from mobileinst_deploy.data.shapes import CLASSES, ShapesClip, ShapesFrame, Split, clip_seed
from mobileinst_deploy.training.augment import LabelledFrames
from mobileinst_deploy.training.config import DataConfig

if TYPE_CHECKING:
    from mobileinst_deploy.training.data import ClipSource


@dataclass(frozen=True)
class ShapesSource:
    """Clips of shapes, drawn when they are read.

    Attributes:
        split: Of the generator's seeds; no two splits share a clip.
        first: Index of the first clip within the split.
        clips: Number of clips.
        frames: Frames of each clip.
        size: (height, width) in pixels.
    """

    split: Split
    first: int
    clips: int
    frames: int
    size: tuple[int, int]

    @property
    def classes(self) -> tuple[str, ...]:
        """The generator's classes."""
        return CLASSES

    def __len__(self) -> int:
        return self.clips

    def length(self, clip: int) -> int:
        """Frames of a clip."""
        del clip
        return self.frames

    def upright(self, clip: int) -> bool:
        """Whether its pictures are higher than wide."""
        del clip
        return self.size[0] > self.size[1]

    def read(self, clip: int, frames: Sequence[int]) -> LabelledFrames:
        """Draw some frames of a clip."""
        drawn_clip = ShapesClip(clip_seed(self.split, self.first + clip), self.frames, self.size)
        return _drawn([drawn_clip.frame(t) for t in frames])


@dataclass(frozen=True)
class CutoutSource:
    """Clips of instances cut out of photographs, made when they are read."""

    cutouts: Cutouts

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in label order."""
        return self.cutouts.classes

    def __len__(self) -> int:
        return len(self.cutouts)

    def length(self, clip: int) -> int:
        """Frames of a clip."""
        del clip
        return self.cutouts.length

    def upright(self, clip: int) -> bool:
        """Whether its pictures are higher than wide."""
        del clip
        return self.cutouts.size[0] > self.cutouts.size[1]

    def read(self, clip: int, frames: Sequence[int]) -> LabelledFrames:
        """Make some frames of a clip."""
        made = self.cutouts.clip(clip)
        return _drawn([made.frame(t) for t in frames])


@dataclass(frozen=True)
class AnnotatedSource:
    """Annotated pictures or clips; regions of many objects are left out.

    Attributes:
        media: The pictures or clips.
        painted: Whether such regions are painted over, so that training neither asks for what is
            in them nor punishes finding it.
    """

    media: AnnotatedSet
    painted: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in label order."""
        return self.media.classes

    def __len__(self) -> int:
        return len(self.media)

    def length(self, clip: int) -> int:
        """Frames of a clip; a picture is a clip of one."""
        return self.media.length(clip)

    def upright(self, clip: int) -> bool:
        """Whether its pictures are higher than wide."""
        height, width = self.media.size(clip)
        return height > width

    def read(self, clip: int, frames: Sequence[int]) -> LabelledFrames:
        """Read some frames of a clip; one that is asked for twice is read once."""
        read = {t: self.media.sample(clip, t) for t in dict.fromkeys(frames)}
        return _join([read[t] for t in frames], self.painted)


Annotated = AnnotatedSource | CutoutSource


def open_sources(
    data: DataConfig, folder: Path, model: ModelConfig
) -> tuple[ClipSource, ClipSource | None]:
    """What to train on, and what to evaluate on if anything.

    Args:
        data: Names them.
        folder: What the configuration's paths are relative to.
        model: Gives the classes in label order, and the size of shapes.

    Raises:
        DatasetError: Annotations are broken, or name classes that the model does not have.
    """
    if data.kind == "shapes":
        size = model.input_size
        drawn = ShapesSource("val", 0, data.validation_clips, data.frames, size)
        return (
            ShapesSource("train", data.first_clip, data.clips, data.frames, size),
            drawn if data.validation_clips else None,
        )

    def one(images: str, annotations: str, *, held_out: bool = False) -> Annotated:
        paths = folder / images, folder / annotations
        if data.kind in ("coco", "ytvis"):
            media = AnnotatedSet(*paths, model.classes, clips=data.kind == "ytvis")
            return AnnotatedSource(media, painted=not held_out)
        drawn: tuple[Split, int, int] = ("train", data.first_clip, data.clips)
        if held_out:
            drawn = ("val", 0, data.validation_clips)
        pictures = AnnotatedSet(*paths, model.classes)
        return CutoutSource(Cutouts(pictures, *drawn, data.frames, model.input_size))

    source = one(data.images, data.annotations)
    _catalogue(source).require_objects("train on")
    if not data.validation_annotations:
        return source, None
    images = data.validation_images or data.images
    held_out = one(images, data.validation_annotations, held_out=True)
    _catalogue(held_out).require_objects("evaluate on")
    return source, held_out


def stills_of(source: ClipSource) -> ClipSource:
    """Where single pictures beside pairs come from: of cut-outs, their photographs."""
    if isinstance(source, CutoutSource):
        return AnnotatedSource(source.cutouts.pictures, painted=True)
    return source


def repeat_weights(source: ClipSource, rare: float) -> np.ndarray | None:
    """How often each picture or clip is drawn, so that rare classes are seen more often.

    Repeat-factor sampling (arXiv 1908.03195, appendix B): a class that a share f of them shows has
    the factor max(1, sqrt(rare / f)), and each is drawn by the largest of its classes' factors.

    Args:
        source: What is trained on.
        rare: Share below which a class counts as rare, 0 to 1; 0: none.

    Returns:
        (clips,) float64 of at least 1; None where all are drawn alike.
    """
    if not (rare and isinstance(source, AnnotatedSource)):
        return None
    shown = source.media.catalogue.media.shown()
    share = shown.mean(axis=0)
    factors = np.sqrt(np.maximum(rare / np.where(share > 0, share, 1), 1))
    weights: np.ndarray = np.where(shown, factors, 1.0).max(axis=1, initial=1.0)
    return weights


def left_out(source: ClipSource | None) -> list[str]:
    """What of a source's annotations training does not learn from: one line a reason."""
    if not isinstance(source, Annotated):
        return []
    catalogue = _catalogue(source)
    return catalogue.lines() + catalogue.crowds.lines()


def _catalogue(source: Annotated) -> Catalogue:
    if isinstance(source, CutoutSource):
        return source.cutouts.pictures.catalogue
    return source.media.catalogue


def _drawn(frames: Sequence[ShapesFrame]) -> LabelledFrames:
    return aligned(
        np.stack([f.image for f in frames]),
        [dict(zip(f.track_ids.tolist(), f.masks, strict=True)) for f in frames],
        {
            int(track): int(label)
            for f in frames
            for track, label in zip(f.track_ids, f.labels, strict=True)
        },
    )


def _join(samples: Sequence[Sample], painted: bool) -> LabelledFrames:
    # Which of a sample's objects are told apart, and each one's track.
    kept = [
        [(k, track) for k, track in enumerate(s.track_ids.tolist()) if not s.crowd[k]]
        for s in samples
    ]
    images = [_without_crowds(s) if painted else s.image for s in samples]
    return aligned(
        images[0][None] if len(images) == 1 else np.stack(images),
        [{track: s.masks[k] for k, track in own} for s, own in zip(samples, kept, strict=True)],
        {track: int(s.labels[k]) for s, own in zip(samples, kept, strict=True) for k, track in own},
    )


def _without_crowds(sample: Sample) -> np.ndarray:
    """The picture with its regions of many objects in the colour of padding."""
    if not sample.crowd.any():
        return sample.image
    crowds = sample.masks[sample.crowd].any(0) & ~sample.masks[~sample.crowd].any(0)
    return np.where(crowds[..., None], np.array(PADDING, np.uint8), sample.image)


def aligned(
    images: np.ndarray, masks: Sequence[dict[int, np.ndarray]], labels: dict[int, int]
) -> LabelledFrames:
    """Put the instances of several frames in one order.

    Args:
        images: (F, H, W, 3) uint8.
        masks: For each frame, masks (H, W) bool by track.
        labels: Class index by track, for every track in any frame.
    """
    tracks = sorted(labels)
    out = np.zeros((len(tracks), *images.shape[:3]), bool)
    for j, frame in enumerate(masks):
        for i, track in enumerate(tracks):
            if track in frame:
                out[i, j] = frame[track]
    return LabelledFrames(images, np.array([labels[t] for t in tracks], np.int64), out)
