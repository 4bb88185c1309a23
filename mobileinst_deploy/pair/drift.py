"""Do two ways of running a model follow a clip alike? By frame, identity and age of the kernels.

A tensor can be within tolerance and a clip still go wrong: kernels are carried forward, so that an
error in them is in every frame up to the next keyframe, and an identity once switched stays so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from mobileinst_deploy.core.contract import MASK_LOGITS, GraphRunner
from mobileinst_deploy.core.graphs import Graphs
from mobileinst_deploy.core.masks import iou, threshold
from mobileinst_deploy.core.tracker import TrackedFrame
from mobileinst_deploy.pair.instances import in_order

Place = Literal["frame graph", "mask-head graph", "hand-over"]

#: Mask IoU from which an identity of one side stands for one of the other.
_SAME_INSTANCE = 0.5


@dataclass(frozen=True)
class FrameAgreement:
    """One frame as two sides saw it.

    Attributes:
        index: Number of the frame in the clip.
        since: Frames since the keyframe, 0 on a keyframe.
        same_ids: Whether both sides made it the same kind of frame with the same identities and
            classes.
        lowest_iou: Lowest mask IoU of an identity with itself, in [0, 1]; an identity that only one
            side has counts 0, two empty masks 1, and no instance at all 1.
        max_abs: Largest difference of the mask logits of the identities that both have.
        masks: How many identities that were.
        switches: Identities that stand for another one than when both sides last saw them.
    """

    index: int
    since: int
    same_ids: bool
    lowest_iou: float
    max_abs: float
    masks: int
    switches: int


@dataclass(frozen=True)
class Drift:
    """All frames of a clip that lie equally far behind their keyframes.

    Attributes:
        since: Frames since the keyframe.
        frames: How many frames that was.
        lowest_iou: The lowest of theirs.
        max_abs: The largest of theirs.
    """

    since: int
    frames: int
    lowest_iou: float
    max_abs: float


@dataclass(frozen=True)
class TrackAgreement:
    """A whole clip as two sides saw it.

    Attributes:
        frames: One entry per frame.
    """

    frames: tuple[FrameAgreement, ...]

    @property
    def same_ids(self) -> bool:
        """Whether identities and classes are the same in every frame."""
        return all(frame.same_ids for frame in self.frames)

    @property
    def lowest_iou(self) -> float:
        """The lowest mask IoU of any frame."""
        return min((frame.lowest_iou for frame in self.frames), default=1.0)

    @property
    def masks(self) -> int:
        """Masks compared over the clip."""
        return sum(frame.masks for frame in self.frames)

    @property
    def switches(self) -> int:
        """Identity switches over the clip."""
        return sum(frame.switches for frame in self.frames)

    @property
    def drift(self) -> tuple[Drift, ...]:
        """By frames since the keyframe: whether the sides come apart as kernels are carried on."""
        result = []
        for since in sorted({frame.since for frame in self.frames}):
            group = [frame for frame in self.frames if frame.since == since]
            result.append(
                Drift(
                    since,
                    len(group),
                    min(frame.lowest_iou for frame in group),
                    max(frame.max_abs for frame in group),
                )
            )
        return tuple(result)


def compare_tracks(
    reference: Iterable[TrackedFrame], candidate: Iterable[TrackedFrame]
) -> TrackAgreement:
    """Compare two sides' results on one clip, frame by frame; both may be streams.

    Raises:
        ValueError: One side has more frames than the other.
    """
    meaning: dict[int, int] = {}
    frames = [_compare(want, got, meaning) for want, got in zip(reference, candidate, strict=True)]
    return TrackAgreement(tuple(frames))


def _compare(want: TrackedFrame, got: TrackedFrame, meaning: dict[int, int]) -> FrameAgreement:
    """Compare one frame; ``meaning`` maps reference identities to candidate ones and is updated."""
    ours, theirs = threshold(want.mask_logits), threshold(got.mask_logits)
    overlap = iou(ours, theirs) if len(ours) and len(theirs) else np.zeros((len(ours), len(theirs)))
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    switches = 0
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if overlap[row, column] >= _SAME_INSTANCE:
            stands_for = int(got.ids[column])
            switches += meaning.setdefault(int(want.ids[row]), stands_for) != stands_for
            meaning[int(want.ids[row])] = stands_for

    place = {identity: column for column, identity in enumerate(got.ids.tolist())}
    ious = [1.0] if set(want.ids.tolist()) == set(place) else [0.0]
    max_abs = 0.0
    for row, identity in enumerate(want.ids.tolist()):
        if identity in place:
            column = place[identity]
            empty = not (ours[row].any() or theirs[column].any())
            ious.append(1.0 if empty else float(overlap[row, column]))
            difference = np.abs(want.mask_logits[row] - got.mask_logits[column])
            max_abs = max(max_abs, float(difference.max()))
    same = (
        want.since == got.since
        and np.array_equal(want.ids, got.ids)
        and np.array_equal(want.classes, got.classes)
    )
    return FrameAgreement(want.index, want.since, same, min(ious), max_abs, len(ious) - 1, switches)


def place_failure(
    reference: GraphRunner,
    candidate: GraphRunner,
    keyframe: np.ndarray,
    reuse: np.ndarray,
    min_mask_iou: float,
    *,
    picks: bool = False,
) -> Place | None:
    """Where a candidate leaves the reference on one keyframe and a reuse frame after it.

    The frame graph is at fault when its masks differ; the mask-head graph, when it makes other
    masks than the reference from the reference's own kernels; else the hand-over, when only the
    candidate's own kernels, carried from its keyframe, lead to other masks.

    Args:
        reference: What is right.
        candidate: What is to be judged.
        keyframe: (1, 3, H, W) float32, RGB, 0 to 255.
        reuse: The same, a later frame.
        min_mask_iou: Lowest IoU, in [0, 1], of a mask with the reference's.
        picks: Whether the network picks its instances, so that their order says nothing.

    Returns:
        The first place that differs, or None.
    """

    def differ(want: np.ndarray, got: np.ndarray) -> bool:
        # Query by query: one of a hundred is enough to lose an instance.
        a, b = (threshold(m[0]).reshape(m.shape[1], -1) for m in (want, got))
        union = (a | b).sum(axis=1)
        shared = (a & b).sum(axis=1)
        return bool((shared < min_mask_iou * union).any())

    ours, theirs = Graphs(reference), Graphs(candidate)
    want, got = ours.frame(keyframe), theirs.frame(keyframe)
    if picks:
        got = in_order(got, want)
    if differ(want[MASK_LOGITS], got[MASK_LOGITS]):
        return "frame graph"
    right = ours.mask_head(reuse, want)
    if differ(right, theirs.mask_head(reuse, want)):
        return "mask-head graph"
    if differ(right, theirs.mask_head(reuse, got)):
        return "hand-over"
    return None
