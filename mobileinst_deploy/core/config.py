"""What a model is, as plain data that checks itself when made.

Everything else in the package is told what to build, export, verify or run by these records. A
wrong configuration fails where it was written and not three steps later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mobileinst_deploy.core.errors import ConfigError

Backbone = Literal[
    "topformer-base", "topformer-small", "topformer-tiny", "seaformer-base", "mobilenetv2"
]
Padding = Literal["even", "tensorflow"]
Decoder = Literal["mobileinst", "fpn", "sparseinst"]
DecoderBlock = Literal["conv", "separable"]
Stage = Literal["global", "local"]
Pool = Literal["max", "avg"]

MASK_STRIDE = 8
SIZE_MULTIPLE = 64
#: Of a picture's side, and of queries and channels: beyond it a number is a slip or an attack.
LIMIT = 4096
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Tolerance:
    """How far an exported graph may be from PyTorch. It lives with the model, in its model.toml.

    A tensor passes when every element satisfies ``|got - want| <= atol + rtol * |want|`` and its
    cosine similarity with the reference is at least ``min_cosine``.

    Attributes:
        atol: Absolute part, in the tensor's own unit (logits).
        rtol: Relative part, a ratio.
        min_cosine: Lowest cosine similarity of the flattened tensors, at most 1.
        min_mask_iou: Lowest IoU, in [0, 1], of a thresholded mask with its reference.
    """

    atol: float = 1e-3
    rtol: float = 1e-3
    min_cosine: float = 0.9999
    min_mask_iou: float = 0.99

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not _is_number(value) or value < 0:
                raise ConfigError(
                    f"tolerance {f.name} is {value!r}, not a finite number from 0 up", "Correct it"
                )
        for name in ("min_cosine", "min_mask_iou"):
            if getattr(self, name) > 1:
                raise ConfigError(
                    f"tolerance {name} is {getattr(self, name)!r}, above 1", "Use at most 1"
                )


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the network, apart from its weights (paper sections 3.1 to 3.3).

    The defaults are the paper's released model; the other values reach every row of its Tables 3,
    5 and 6.

    Attributes:
        backbone: Which backbone gives the maps X3 to X6.
        classes: Class names, in logit order; their number is the width of the class logits.
        input_size: (height, width) of the picture in pixels, each a multiple of 64.
        num_queries: N, the number of instance queries and so of kernels and masks.
        width: D, the channels of projections, mask features, queries and kernels; a multiple of
            ``num_heads`` and of 4 (sine position embedding).
        num_heads: Attention heads of the instance decoder.
        decoder: Mask decoder: the paper's, or Table 6's FPN or SparseInst ones.
        decoder_convs: SparseInst's number of mask-branch convolutions (Table 6: 1, 2, 4); the
            other decoders take no notice of it.
        decoder_block: What stands for each of the nine 3x3 convolutions of the paper's decoder: that
            convolution, or a depthwise 3x3 before a pointwise one, a ninth of its cost. The other
            decoders take no notice of it.
        enhancer: Whether the semantic enhancer is in the paper's mask decoder (Table 6).
        stages: Order of the instance decoder's stages (Table 3).
        pool: How the local stage pools the mask features (Table 5).
        pool_size: Kernel and stride of that pooling; 1 means none (Table 5).
        padding: How MobileNetV2's stride-2 convolutions pad an even side: evenly, as PyTorch's, or on
            the right and bottom alone, as TensorFlow's. Weights know only the one that they were
            trained with: ImageNet's lose nine points of top-1 with the other.
        mean: Per-channel RGB mean subtracted inside the graph, in 0..255 units.
        std: Per-channel RGB divisor inside the graph, in 0..255 units.
    """

    backbone: Backbone
    classes: tuple[str, ...]
    input_size: tuple[int, int]
    num_queries: int = 100
    width: int = 256
    num_heads: int = 8
    decoder: Decoder = "mobileinst"
    decoder_convs: int = 4
    decoder_block: DecoderBlock = "conv"
    enhancer: bool = True
    stages: tuple[Stage, ...] = ("global", "local")
    pool: Pool = "max"
    pool_size: int = 8
    padding: Padding = "even"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        def need(ok: bool, cause: str, next_step: str) -> None:
            if not ok:
                raise ConfigError(cause, next_step)

        for name, kind in (
            ("backbone", Backbone),
            ("padding", Padding),
            ("decoder", Decoder),
            ("decoder_block", DecoderBlock),
            ("pool", Pool),
        ):
            allowed = get_args(kind)
            value = getattr(self, name)
            need(value in allowed, f"{name} {value!r} is unknown", f"Use {_either(allowed)}")
        need(
            self.padding == "even" or self.backbone == "mobilenetv2",
            f"padding {self.padding!r} is not for the backbone {self.backbone}",
            'Leave it out, or use the backbone "mobilenetv2"',
        )
        need(
            bool(self.stages) and all(s in get_args(Stage) for s in self.stages),
            f"stages {self.stages!r} is not a list of 'global' and 'local'",
            'Use for example ["global", "local"]',
        )
        check_size(self.input_size)
        for name in ("num_queries", "width", "num_heads", "decoder_convs", "pool_size"):
            value = getattr(self, name)
            need(
                isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LIMIT,
                f"{name} is {value!r}, not a whole number from 1 to {LIMIT}",
                "Correct it in the model's configuration",
            )
        need(
            self.width % self.num_heads == 0 and self.width % 4 == 0,
            f"width {self.width} is not a multiple of 4 and of num_heads {self.num_heads}",
            "Choose a width that both divide",
        )
        need(
            self.pool_size in (1, 2, 4, 8),
            f"pool_size {self.pool_size} does not divide the 1/8 map of every picture size",
            "Use 1, 2, 4 or 8",
        )
        need(
            bool(self.classes) and all(isinstance(c, str) and c for c in self.classes),
            "classes is empty or holds something that is not a name",
            "List one name per class",
        )
        need(
            len(set(self.classes)) == len(self.classes),
            "classes names one class twice",
            "Give every class its own name",
        )
        for name in ("mean", "std"):
            value = getattr(self, name)
            need(
                len(value) == 3 and all(map(_is_number, value)),
                f"{name} is {value!r}, not three finite numbers",
                "Give one number for each of R, G and B, in 0..255 units",
            )
        need(min(self.std) > 0, "std holds a value that is not positive", "Correct it")

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.classes)

    @property
    def mask_stride(self) -> int:
        """Pixels of the picture per position of the mask logits."""
        return MASK_STRIDE

    @property
    def mask_size(self) -> tuple[int, int]:
        """(height, width) of the mask logits: 1/8 of the picture."""
        return self.input_size[0] // MASK_STRIDE, self.input_size[1] // MASK_STRIDE

    def to_dict(self) -> dict[str, Any]:
        """The JSON and TOML form; tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Read :meth:`to_dict`'s form.

        Raises:
            ConfigError: A field is missing, unknown, of another type or out of range.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigError(
                f"the model configuration has unknown fields: {', '.join(map(str, unknown))}",
                f"Known are {', '.join(sorted(known))}",
            )
        missing = sorted({"backbone", "classes", "input_size"} - set(data))
        if missing:
            raise ConfigError(
                f"the model configuration lacks {', '.join(missing)}", "Add the missing fields"
            )
        values: dict[str, Any] = {}
        for f in fields(cls):
            if f.name not in data:
                continue
            value = data[f.name]
            if isinstance(value, list):
                value = tuple(value)
            if f.type.startswith("tuple") and not isinstance(value, tuple):
                raise ConfigError(f"{f.name} is {value!r}, not a list", "Write it as a list")
            if f.type == "bool" and not isinstance(value, bool):
                raise ConfigError(f"{f.name} is {value!r}, not true or false", "Correct it")
            if f.name in ("mean", "std"):
                if not all(map(_is_number, value)):
                    raise ConfigError(f"{f.name} is {value!r}, not finite numbers", "Correct it")
                value = tuple(float(v) for v in value)
            values[f.name] = value
        return cls(**values)


def check_size(size: tuple[int, int], multiple: int = SIZE_MULTIPLE) -> None:
    """Check a picture size (height, width).

    Raises:
        ConfigError: It is not two positive multiples of ``multiple``, or a side is above
            :data:`LIMIT` pixels.
    """
    ok = len(size) == 2 and all(
        isinstance(v, int) and 0 < v <= LIMIT and v % multiple == 0 for v in size
    )
    if not ok:
        shown = "x".join(map(str, size))
        raise ConfigError(
            f"the size {shown} is not HEIGHTxWIDTH in multiples of {multiple} up to {LIMIT}",
            "Use for example 384x640",
        )


def parse_size(text: str, *, multiple: int = SIZE_MULTIPLE) -> tuple[int, int]:
    """Read ``HEIGHTxWIDTH``, for example ``384x640``, as (height, width).

    Args:
        text: What the user wrote.
        multiple: What both sides must be multiples of.

    Raises:
        ConfigError: It does not have that form, or a side is not such a multiple.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
        raise ConfigError(f"the size {text!r} is not HEIGHTxWIDTH", "Use for example 384x640")
    size = (int(parts[0]), int(parts[1]))
    check_size(size, multiple)
    return size


def _is_number(value: object) -> bool:
    """Whether it is a finite number; an int beyond a float's range is not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _either(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
