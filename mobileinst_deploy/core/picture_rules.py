"""How a picture becomes the graphs' input and outputs become instances, for machines.

The manifest of every pair carries :func:`picture_rules`, so that an app, or a tool that writes one,
need not read prose. ``docs/picture-to-graph.md`` says the same in words. The code that follows the
rules is :mod:`mobileinst_deploy.media.letterbox` and :mod:`mobileinst_deploy.core.tracker`; tests
hold the rules to it.
"""

from __future__ import annotations

from typing import Any

from mobileinst_deploy.core.contract import IMAGE
from mobileinst_deploy.core.needs import Description

#: RGB of the padding: the ImageNet mean in whole numbers, next to zero once normalised.
PADDING = (124, 116, 104)
#: Lowest score of an instance that is shown, unless somebody asks for another.
SCORE_THRESHOLD = 0.3
#: A pixel belongs to a mask when its logit is above this.
MASK_THRESHOLD = 0.0
#: What decides whether an instance of a keyframe continues a track; see
#: :class:`~mobileinst_deploy.core.tracker.TrackSettings`. ``consecutive`` is the paper's.
ASSOCIATION_SETTINGS: dict[str, dict[str, float | int]] = {
    "remembering": {
        "keep": 0.5,
        "similarity": 0.5,
        "memory": 30,
        "duplicate_iou": 0.5,
        "remembered": 10,
        "overlap": 0.6,
    },
    "consecutive": {
        "keep": 1.0,
        "similarity": 0.5,
        "memory": 0,
        "duplicate_iou": 1.0,
        "remembered": 1,
        "overlap": 0.0,
    },
}
#: Keyframes over which a track's kernel is averaged: a single one may be blurred or half hidden.
KERNELS_REMEMBERED = int(ASSOCIATION_SETTINGS["remembering"]["remembered"])


def picture_rules(config: Description) -> dict[str, Any]:
    """The rules for one model, as JSON.

    Formulas are Python expressions over whole pixels: ``picture``, ``content`` and ``input`` are a
    side's length in the picture, in the network input without its padding, and in the network
    input; ``logits`` is that of the mask logits. ``round`` takes halves to the even number.
    """
    height, width = config.input_size
    return {
        "input": {
            "tensor": IMAGE,
            "shape": [1, 3, height, width],
            "dtype": "float32",
            "channels": "RGB",
            "range": [0, 255],
            "normalised": "inside the graphs",
        },
        "fit": {
            "scale": "min(input_height / picture_height, input_width / picture_width)",
            "content": "min(max(1, round(picture * scale)), input)",
            "position": "top left",
            "padding": list(PADDING),
            "smaller": "area",
            "larger": "bilinear",
            "implementation": "OpenCV: INTER_AREA where scale < 1, else INTER_LINEAR, on uint8",
        },
        "instance": {
            "score": "sqrt(sigmoid(class_logits) * sigmoid(objectness_logits))",
            "precision": "float64, rounded to float32",
            "score_threshold": SCORE_THRESHOLD,
            "class": "the highest score",
        },
        "mask": {
            "resize": "bilinear",
            "position": "(pixel + 0.5) * (content / picture) * (logits / input) - 0.5",
            "beyond_border": "the border's value",
            "sample": "a + (b - a) * t in float32, along the row, then along the column",
            "threshold": MASK_THRESHOLD,
            "inside": "above the threshold, after resizing",
        },
        "association": {
            "measure": "cosine of kernels + overlap * IoU with the mask in the frame before",
            "assignment": "one to one, of the greatest sum above the similarity",
            "default": "remembering",
            "kinds": {kind: dict(values) for kind, values in ASSOCIATION_SETTINGS.items()},
        },
        "reuse": {
            "kernels": "those of the keyframe's shown instances, as the frame graph gave them",
            "missing_kernels": "zeros, where the mask-head graph takes a fixed number",
        },
    }
