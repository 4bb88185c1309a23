"""The sequence gate: does the exported pair follow a real clip as PyTorch does?

Two trackers go through the clip side by side, each with kernels of its own. An error that is
harmless in one tensor shows here when it grows from frame to frame or switches an identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import islice, tee

import numpy as np

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import GraphRunner
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import Check
from mobileinst_deploy.core.schedule import Schedule
from mobileinst_deploy.core.tracker import TrackedFrame, TrackSettings, track_clip
from mobileinst_deploy.pair.drift import (
    FrameAgreement,
    TrackAgreement,
    compare_tracks,
    place_failure,
)


def verify_clip(
    reference: GraphRunner,
    candidate: GraphRunner,
    images: Callable[[], Iterable[np.ndarray]],
    schedule: Schedule,
    settings: TrackSettings,
    tolerance: Tolerance,
    *,
    follow: Callable[[Iterable[np.ndarray]], Iterable[TrackedFrame]] | None = None,
    picks: bool = False,
    progress: Progress = silent,
) -> Check:
    """Follow a clip twice and compare identities, classes and masks in every frame.

    Args:
        reference: PyTorch.
        candidate: The exported pair, wherever it runs.
        images: Gives the clip from its beginning, each (1, 3, H, W) float32, RGB, 0 to 255; called
            again to look at a frame that went wrong.
        schedule: When keyframes come.
        settings: What counts as an instance.
        tolerance: The model's; ``min_mask_iou`` is asked of every mask.
        follow: Follows the clip where the candidate runs, by the same schedule and settings; None
            asks the candidate frame by frame.
        picks: Whether the network picks its instances, so that their order says nothing.
        progress: Told of every frame.

    Returns:
        The rung ``clip``. When it fails, its detail names the frame and the place: the frame graph,
        the mask-head graph, or the hand-over of kernels from one to the other.
    """

    def heard(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames):
            progress("verify on the clip", index, None)
            yield frame

    # The comparison takes a frame of each side in turn: tee holds no more than a side reads ahead.
    ours, theirs = tee(heard(images()))
    if follow is None:
        # A schedule remembers what its own side saw.
        followed: Iterable[TrackedFrame] = track_clip(
            candidate, theirs, deepcopy(schedule), settings
        )
    else:
        followed = follow(theirs)
    agreement = compare_tracks(track_clip(reference, ours, schedule, settings), followed)
    figures = _figures(agreement)
    wrong = next((f for f in agreement.frames if not _agrees(f, tolerance)), None)
    if wrong is None:
        detail = f"{len(agreement.frames)} frames, " + (
            f"the same identities in each, lowest IoU of {agreement.masks} masks "
            f"{agreement.lowest_iou:.4f}"
            if agreement.masks
            else "no instance in any of them on either side: no mask was compared"
        )
        return Check("clip", True, detail, figures)
    first = wrong.index - wrong.since
    part = list(islice(images(), first, wrong.index + 1))
    place = place_failure(
        reference, candidate, part[0], part[-1], tolerance.min_mask_iou, picks=picks
    )
    what = (
        f"lowest mask IoU {wrong.lowest_iou:.4f}"
        if wrong.same_ids
        else "other identities or classes"
    )
    detail = (
        f"frame {wrong.index}, {wrong.since} after its keyframe, has {what}; the difference is in "
        f"the {place or 'tracking of scores near a threshold'}"
    )
    return Check("clip", False, detail, figures)


def _agrees(frame: FrameAgreement, tolerance: Tolerance) -> bool:
    return frame.same_ids and not frame.switches and frame.lowest_iou >= tolerance.min_mask_iou


def _figures(agreement: TrackAgreement) -> dict[str, object]:
    return {
        "frames": len(agreement.frames),
        "same_ids": agreement.same_ids,
        "masks": agreement.masks,
        "identity_switches": agreement.switches,
        "min_mask_iou": agreement.lowest_iou,
        "drift": [
            {
                "age": d.since,
                "frames": d.frames,
                "min_mask_iou": d.lowest_iou,
                "max_abs": d.max_abs,
            }
            for d in agreement.drift
        ],
    }
