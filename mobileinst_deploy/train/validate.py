"""Picture AP while training, on pictures as the source gives them; ``evaluate`` is the full one."""

from __future__ import annotations

import contextlib
import io

import cv2
import numpy as np
import torch
from torch import Tensor

from mobileinst_deploy.geometry import PADDING
from mobileinst_deploy.masks import encode
from mobileinst_deploy.modeling import MobileInst
from mobileinst_deploy.progress import Progress, silent
from mobileinst_deploy.specs import SIZE_MULTIPLE
from mobileinst_deploy.train.data import ClipSource

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")
MIN_SCORE = 0.02
_BATCH = 8


@torch.no_grad()
def picture_ap(
    model: MobileInst, source: ClipSource, progress: Progress = silent
) -> dict[str, float]:
    """Mask AP over one frame of every clip, its middle one.

    Args:
        model: Evaluated in eval mode; left in the mode it was in.
        source: Held-out clips.
        progress: Told of every batch.

    Returns:
        COCO's metrics by name, from 0 to 1, without those that the data leaves undefined; empty
        where the data holds no instance.

    Raises:
        MediaError: A picture cannot be read.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    images, annotations, results = [], [], []
    clips = range(len(source))
    for start in range(0, len(clips), _BATCH):
        for clip in clips[start : start + _BATCH]:
            frames = source.read(clip, [source.length(clip) // 2])
            image = frames.images[0]
            shape = image.shape[:2]
            images.append({"id": clip, "height": shape[0], "width": shape[1]})
            for label, mask in zip(frames.labels, frames.masks[:, 0], strict=True):
                if mask.any():
                    annotations.append(_annotation(clip, int(label), mask, len(annotations) + 1))
            results += _results(model, image, clip, device)
        progress("evaluating", min(start + _BATCH, len(clips)), len(clips))
    model.train(was_training)
    if not annotations:
        return {}
    categories = [{"id": i, "name": name} for i, name in enumerate(source.classes)]
    if not results:
        return dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO({"images": images, "annotations": annotations, "categories": categories})
        evaluation = COCOeval_faster(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [float(value) for value in evaluation.stats]
    return {name: value for name, value in zip(NAMES, stats, strict=False) if value >= 0}


def _annotation(clip: int, label: int, mask: np.ndarray, number: int) -> dict[str, object]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    x, y = int(columns[0]), int(rows[0])
    return {
        "id": number,
        "image_id": clip,
        "category_id": label,
        "segmentation": encode(mask),
        "area": int(mask.sum()),
        "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
        "iscrowd": 0,
    }


def _results(
    model: MobileInst, image: np.ndarray, clip: int, device: torch.device
) -> list[dict[str, object]]:
    """COCO results of one picture: every query and class above a low score."""
    height, width = image.shape[:2]
    size = tuple(-(-s // SIZE_MULTIPLE) * SIZE_MULTIPLE for s in (height, width))
    padded = np.full((*size, 3), PADDING, np.uint8)
    padded[:height, :width] = image
    tensor = torch.from_numpy(padded).permute(2, 0, 1)[None].float().to(device)
    output = model(tensor)
    scores = (output.class_logits[0].sigmoid() * output.objectness_logits[0].sigmoid()).sqrt()
    chosen = (scores.amax(1) > MIN_SCORE).nonzero().squeeze(1)
    logits = _numpy(output.mask_logits[0, chosen])
    found = []
    for query, mask_logits in zip(chosen.tolist(), logits, strict=True):
        full = cv2.resize(mask_logits, size[::-1], interpolation=cv2.INTER_LINEAR)
        mask = full[:height, :width] > 0
        if not mask.any():
            continue
        rle = encode(mask)
        for label in (scores[query] > MIN_SCORE).nonzero().squeeze(1).tolist():
            found.append(
                {
                    "image_id": clip,
                    "category_id": label,
                    "segmentation": rle,
                    "score": float(scores[query, label]),
                }
            )
    return found


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
