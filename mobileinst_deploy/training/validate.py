"""Picture AP while training, at the model's own size; ``evaluate`` is the full measurement."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.tracker import class_scores
from mobileinst_deploy.measure.average_precision import (
    PICTURE_METRICS,
    AveragePrecision,
    Candidate,
    Truth,
)
from mobileinst_deploy.media.letterbox import prepare, turned_for, unfit_masks
from mobileinst_deploy.network import MobileInst
from mobileinst_deploy.training.data import ClipSource

#: Clips of each process between two meetings of all.
_TOGETHER = 16
# Weaker results hardly move AP and cost most of the time.
_MIN_SCORE = 0.02


@torch.no_grad()
def picture_ap(
    model: MobileInst,
    source: ClipSource,
    progress: Progress = silent,
    *,
    process: int = 0,
    processes: int = 1,
    upright: bool = False,
) -> dict[str, float]:
    """Mask AP over one frame of every clip, its middle one.

    Args:
        model: Evaluated in eval mode; left in the mode it was in.
        source: Held-out clips.
        progress: Told of every clip.
        process: This process, from 0.
        processes: How many share the clips; all of them call this at once.
        upright: Whether upright pictures are fitted into the model's size turned upright.

    Returns:
        COCO's metrics by name, from 0 to 1, without those that the data leaves undefined. Every
        process gets those of all clips.

    Raises:
        MediaError: A picture cannot be read.
    """
    was_training = model.training
    model.eval()
    ap = AveragePrecision(source.classes)
    for clip in range(process, len(source), processes):
        frames = source.read(clip, [source.length(clip) // 2])
        truth = [
            Truth(int(label), encode(mask), float(mask.sum()), crowd=False)
            for label, mask in zip(frames.labels, frames.masks[:, 0], strict=True)
            if mask.any()
        ]
        size = model.config.input_size
        if upright:
            size = turned_for(size, frames.images.shape[1:3])
        ap.add(frames.images.shape[1:3], truth, _found(model, frames.images[0], size), number=clip)
        progress("evaluating", clip + 1, len(source))
        everyone = clip - process + processes <= len(source)
        if processes > 1 and everyone and clip // processes % _TOGETHER == 0:
            # No process gets so far ahead that its wait for the others could time out.
            dist.barrier()
    model.train(was_training)
    if processes > 1:
        ap = _merged(ap, source.classes)
    if not ap.objects:
        return {}
    measured = ap.metrics(PICTURE_METRICS)
    return {name: value for name, value in measured.items() if value is not None}


def _merged(ap: AveragePrecision, classes: tuple[str, ...]) -> AveragePrecision:
    """What all processes matched, in every one of them."""
    states: list[bytes | None] = [None] * dist.get_world_size()
    dist.all_gather_object(states, ap.state())
    return AveragePrecision.of_states(classes, [state for state in states if state is not None])


def _found(model: MobileInst, image: np.ndarray, size: tuple[int, int]) -> list[Candidate]:
    """Every query of one picture with its classes above a low score."""
    prepared, geometry = prepare(image, size)
    device = next(model.parameters()).device
    output = model(torch.from_numpy(prepared).to(device))
    scores = class_scores(_numpy(output.class_logits[0]), _numpy(output.objectness_logits[0]))
    chosen = np.flatnonzero(scores.max(1) > _MIN_SCORE)
    masks = unfit_masks(_numpy(output.mask_logits[0])[chosen], geometry)
    return [
        Candidate(
            encode(mask),
            tuple((int(c), float(scores[i, c])) for c in np.flatnonzero(scores[i] > _MIN_SCORE)),
        )
        for i, mask in zip(chosen, masks, strict=True)
        if mask.any()
    ]


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().cpu().numpy()
    return array
