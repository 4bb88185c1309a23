"""The clips that can be trained on: drawn shapes, COCO's pictures, YouTube-VIS's videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobileinst_deploy.datasets.shapes import CLASSES, ShapesClip, Split, clip_seed
from mobileinst_deploy.train.data import LabelledFrames


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

    def read(self, clip: int, frames: Sequence[int]) -> LabelledFrames:
        """Draw some frames of a clip."""
        drawn_clip = ShapesClip(clip_seed(self.split, self.first + clip), self.frames, self.size)
        drawn = [drawn_clip.frame(t) for t in frames]
        return aligned(
            np.stack([d.image for d in drawn]),
            [dict(zip(d.track_ids.tolist(), d.masks, strict=True)) for d in drawn],
            {
                int(track): int(label)
                for d in drawn
                for track, label in zip(d.track_ids, d.labels, strict=True)
            },
        )


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
