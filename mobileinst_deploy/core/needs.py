"""What a kernel network says of itself, as plain checked data.

A kernel network makes masks as kernels times mask features. Whatever exports, measures or tracks
with one reads this record and nothing else of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from mobileinst_deploy.core.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_CLASSES,
    Count,
    Divisor,
    Level,
    ModelConfig,
    Name,
)
from mobileinst_deploy.core.documents import Blame, check, convert
from mobileinst_deploy.core.errors import ConfigError

ChannelOrder = Literal["rgb", "bgr"]
Scores = Literal["quality", "sigmoid", "softmax"]
Suppression = Literal["none", "matrix", "box"]

#: The schedule of keyframes compares pictures by cells of so many pixels a side.
CELL = 32
#: The logit whose probability is 1 in float32 and that no arithmetic on the way turns into more.
CERTAIN = 30.0


@dataclass(frozen=True)
class Needs:
    """What a kernel network needs, and what its outputs mean.

    Attributes:
        classes: Class names, in logit order, without a class for "no object".
        input_size: (height, width) of the picture in pixels.
        num_queries: N, the number of kernels that a keyframe gives.
        width: D, the numbers in one kernel.
        mask_stride: Pixels of the picture per position of the mask logits.
        size_multiple: What both sides of a picture must be multiples of, besides 32.
        mean: Per-channel mean that the network subtracts, in 0..255 units, in the order R, G, B.
        std: Per-channel divisor, likewise.
        channel_order: The order of the channels that the weights were trained with. Pictures are
            always RGB; a network trained on BGR turns them itself.
        scores: How a score comes about. ``quality``: sqrt(sigmoid(class) * sigmoid(quality)), with
            one quality logit per kernel. ``sigmoid``: sigmoid(class). ``softmax``: softmax over
            the classes and, last, "no object".
        mask_threshold: Probability from which a pixel belongs to a mask, in (0, 1).
        maskness: Whether its evaluation multiplies a score by the mean probability inside the mask.
        suppression: What removes duplicates in its evaluation. ``none``: a set-based network finds
            every object once. ``matrix`` (SOLOv2) and ``box`` (CondInst, YOLACT): a dense one finds
            it many times.
    """

    classes: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_CLASSES)]
    input_size: tuple[Count, Count]
    num_queries: Count
    width: Count
    mask_stride: Count = 8
    size_multiple: Count = 32
    mean: tuple[Level, Level, Level] = IMAGENET_MEAN
    std: tuple[Divisor, Divisor, Divisor] = IMAGENET_STD
    channel_order: ChannelOrder = "rgb"
    scores: Scores = "quality"
    mask_threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    maskness: bool = False
    suppression: Suppression = "none"

    def __post_init__(self) -> None:
        check(self, ConfigError)
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError("classes names one class twice", "Give every class its own name")
        step = math.lcm(CELL, self.size_multiple, self.mask_stride)
        if any(side % step for side in self.input_size):
            shown = "x".join(map(str, self.input_size))
            raise ConfigError(
                f"input_size {shown} is not height and width in multiples of {step}",
                "Choose another size",
            )

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.classes)

    @property
    def mask_size(self) -> tuple[int, int]:
        """(height, width) of the mask logits."""
        return self.input_size[0] // self.mask_stride, self.input_size[1] // self.mask_stride

    @property
    def mask_shift(self) -> float:
        """What is added to the network's own mask logits so that a pixel belongs from 0 up."""
        return math.log((1 - self.mask_threshold) / self.mask_threshold)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Needs:
        """Read :meth:`to_dict`'s form.

        Raises:
            ConfigError: A field is missing, unknown or out of range.
        """
        blame = Blame("the network's needs", ConfigError, "Correct its `needs`")
        return convert(dict(data), cls, blame)


#: What a pair says of its network: MobileInst's configuration, or another one's needs.
Description = ModelConfig | Needs
