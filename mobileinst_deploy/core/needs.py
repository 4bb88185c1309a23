"""What a kernel network says of itself, as plain checked data.

A kernel network makes masks as kernels times mask features. Whatever exports, measures or tracks
with one reads this record and nothing else of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mobileinst_deploy.core.config import IMAGENET_MEAN, IMAGENET_STD, LIMIT, ModelConfig
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
            every object once. ``matrix`` (SOLOv2) and ``box`` (CondInst, YOLACT): a dense one finds it many times.
    """

    classes: tuple[str, ...]
    input_size: tuple[int, int]
    num_queries: int
    width: int
    mask_stride: int = 8
    size_multiple: int = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channel_order: ChannelOrder = "rgb"
    scores: Scores = "quality"
    mask_threshold: float = 0.5
    maskness: bool = False
    suppression: Suppression = "none"

    def __post_init__(self) -> None:
        for name in ("num_queries", "width", "mask_stride", "size_multiple"):
            value = getattr(self, name)
            _need(
                isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LIMIT,
                f"{name} is {value!r}, not a whole number from 1 to {LIMIT}",
            )
        _need(
            bool(self.classes) and all(isinstance(c, str) and c for c in self.classes),
            "classes is empty or holds something that is not a name",
        )
        _need(len(set(self.classes)) == len(self.classes), "classes names one class twice")
        step = math.lcm(CELL, self.size_multiple, self.mask_stride)
        _need(
            len(self.input_size) == 2
            and all(
                isinstance(v, int) and 0 < v <= LIMIT and v % step == 0 for v in self.input_size
            ),
            f"input_size {self.input_size!r} is not (height, width) in multiples of {step}",
        )
        for name in ("mean", "std"):
            value = getattr(self, name)
            _need(
                len(value) == 3 and all(_finite(v) for v in value),
                f"{name} is {value!r}, not three finite numbers",
            )
        _need(min(self.std) > 0, "std holds a value that is not positive")
        _need(
            _finite(self.mask_threshold) and 0 < self.mask_threshold < 1,
            f"mask_threshold is {self.mask_threshold!r}, not between 0 and 1",
        )
        _need(isinstance(self.maskness, bool), f"maskness is {self.maskness!r}, not true or false")
        for name, kind in (
            ("channel_order", ChannelOrder),
            ("scores", Scores),
            ("suppression", Suppression),
        ):
            value, known = getattr(self, name), get_args(kind)
            _need(value in known, f"{name} {value!r} is none of {', '.join(known)}")

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
        known = {f.name for f in fields(cls)}
        unknown = sorted(map(str, set(data) - known))
        _need(not unknown, f"there are unknown fields: {', '.join(unknown)}")
        missing = sorted({"classes", "input_size", "num_queries", "width"} - set(data))
        _need(not missing, f"there is no {', '.join(missing)}")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        for name in ("classes", "input_size", "mean", "std"):
            _need(isinstance(values.get(name, ()), tuple), f"{name} is not a list")
        return cls(**values)


#: What a pair says of its network: MobileInst's configuration, or another one's needs.
Description = ModelConfig | Needs


def _need(ok: bool, cause: str) -> None:
    if not ok:
        raise ConfigError(f"the network's needs are wrong: {cause}", "Correct its `needs`")


def _finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
