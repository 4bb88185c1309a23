"""The instances of a network that picks its own: which ones they are, whatever order they come in.

A dense network takes its N best cells, and FastInst its queries. Cells of nearly equal worth change
places with the last digits of a processor, and at the Nth place one is taken for another. Neither
is an error, and a comparison by place would call both one. Kernels tell which instance is which.
Where two neighbours tie for a class, SOLOv2 gives it to one of them, and rounding says to which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import (
    CLASS_LOGITS,
    KERNELS,
    MASK_LOGITS,
    OBJECTNESS_LOGITS,
    Tensors,
)
from mobileinst_deploy.core.records import Check
from mobileinst_deploy.core.tracker import class_scores
from mobileinst_deploy.pair.onnx_file import all_nodes

#: Kernels that are nearer than this share of the largest value are one instance's.
_SAME_KERNEL = 1e-2
#: The least share of instances that both sides have; with fewer, equal worth is no excuse.
LEAST_SHARE = 0.9
_OF_AN_INSTANCE = (CLASS_LOGITS, OBJECTNESS_LOGITS, KERNELS, MASK_LOGITS)
#: A score below it is a class that the network ruled out; the most that ties may rule out, of all
#: classes that are left.
RULED_OUT = 1e-6
MOST_TIES = 1e-3


@dataclass(frozen=True)
class Matched:
    """One picture's instances in the order of the reference's.

    Attributes:
        outputs: All outputs of the frame graph. Where an instance is another one of equal worth,
            the reference's stands in, so that it is compared no further.
        share: How many instances are the reference's, of all, in [0, 1].
        ties: Classes of an instance that one side alone ruled out, where they are few; there too
            the reference stands in.
        unlike: Places, in the reference's order, of instances that are others without that excuse.
        scores: The reference's best score per instance, (N,).
    """

    outputs: dict[str, np.ndarray]
    share: float
    ties: int
    unlike: tuple[int, ...]
    scores: np.ndarray


def picks_instances(frame: onnx.ModelProto) -> bool:
    """Whether a frame graph chooses its instances by the picture, so that order says nothing."""
    return any(node.op_type == "TopK" for node in all_nodes(frame))


def match_instances(got: Tensors, want: Tensors, tolerance: Tolerance) -> Matched:
    """Bring one picture's instances into the order of the reference.

    Args:
        got: The frame graph's outputs on one picture, finite.
        want: The reference's on the same picture, of the same shapes.
        tolerance: ``edge_score`` is how near to the lowest score of all N an instance has to be so
            that another one may be there in its place.
    """
    ordered = in_order(got, want)
    same = np.diagonal(_apart(ordered[KERNELS], want[KERNELS])) <= _SAME_KERNEL
    theirs, ours = _best_scores(want), _best_scores(ordered)
    excused = (theirs <= theirs.min() + tolerance.edge_score) & (
        ours <= ours.min() + tolerance.edge_score
    )
    share = float(same.mean())
    if share < LEAST_SHARE:
        excused[:] = False
    stands_in = ~same & excused
    outputs = {name: value.copy() for name, value in ordered.items()}
    for name in _OF_AN_INSTANCE:
        outputs[name][:, stands_in] = want[name][:, stands_in]
    ties = _ties(outputs, want)
    outputs[CLASS_LOGITS][ties] = want[CLASS_LOGITS][ties]
    unlike = tuple(np.flatnonzero(~same & ~excused).tolist())
    return Matched(outputs, share, int(ties.sum()), unlike, theirs)


def in_order(got: Tensors, want: Tensors) -> dict[str, np.ndarray]:
    """One picture's outputs with each instance in the place of the reference's that is nearest.

    Kernels decide, and logits between instances of one kernel.
    """
    cost = _apart(got[KERNELS], want[KERNELS])
    for name in (CLASS_LOGITS, OBJECTNESS_LOGITS):
        cost = cost + _SAME_KERNEL * np.minimum(1, _apart(got[name], want[name])) / 4
    _, rows = linear_sum_assignment(cost.T)
    return {n: value[:, rows] if n in _OF_AN_INSTANCE else value for n, value in got.items()}


def instances_check(pictures: Sequence[Matched], tolerance: Tolerance) -> Check:
    """The rung: both sides picked the same instances, but for some of equal worth."""
    shares = [picture.share for picture in pictures]
    ties = sum(picture.ties for picture in pictures)
    figures = {"lowest_share": min(shares), "ties": ties}
    for index, picture in enumerate(pictures):
        if picture.unlike:
            place = picture.unlike[0]
            detail = (
                f"instance {place} of picture {index}, which scores {picture.scores[place]:.4f}, "
                f"is none of those that the frame graph picked there ({picture.share:.0%} are)"
            )
            return Check(
                "instances", False, detail, {**figures, "graph": "frame", "picture": index}
            )
    count = len(pictures[0].scores)
    others = [
        f"on picture {index} {round(count * (1 - share))} of {count}"
        for index, share in enumerate(shares)
        if share < 1
    ]
    detail = f"the same {count} on every picture, in whatever order"
    if others:
        detail = (
            f"the same ones, but others within {tolerance.edge_score} of the lowest score "
            f"{', '.join(others)}"
        )
    if ties:
        detail += f"; one side alone rules {ties} of their classes out, as neighbours that tie do"
    return Check("instances", True, detail, figures)


def _ties(got: Tensors, want: Tensors) -> np.ndarray:
    """(1, N, C) whether one side alone ruled a class out; nowhere where that is too often."""
    ours, theirs = (
        class_scores(side[CLASS_LOGITS], side[OBJECTNESS_LOGITS]) for side in (got, want)
    )
    lower, higher = np.minimum(ours, theirs), np.maximum(ours, theirs)
    # What is low on both sides is for the tolerance to judge.
    ties: np.ndarray = (lower < RULED_OUT) & (higher > 1e3 * RULED_OUT)
    if ties.sum() > max(1, MOST_TIES * (higher >= RULED_OUT).sum()):
        ties[:] = False
    return ties


def _apart(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """(N, N) the largest difference of any element, as a share of the reference's largest."""
    largest = max(float(np.abs(want).max()), 1e-30)
    apart: np.ndarray = cdist(got[0], want[0], "chebyshev") / largest
    return apart


def _best_scores(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    scores: np.ndarray = class_scores(outputs[CLASS_LOGITS], outputs[OBJECTNESS_LOGITS])[0].max(-1)
    return scores
