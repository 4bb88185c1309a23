"""What a model is, as plain data that checks itself when made.

Everything else in the package is told what to build, export, verify or run by these records. A
wrong configuration fails where it was written and not three steps later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from msgspec import Meta

from mobileinst_deploy.core.documents import Blame, check, convert
from mobileinst_deploy.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

Backbone = Literal[
    "topformer-base",
    "topformer-small",
    "topformer-tiny",
    "seaformer-large",
    "seaformer-base",
    "seaformer-small",
    "seaformer-tiny",
    "mobilenetv2",
    "resnet-50",
    "resnet-18",
]
Padding = Literal["even", "tensorflow"]
Decoder = Literal["mobileinst", "fpn", "sparseinst"]
DecoderBlock = Literal["conv", "separable"]
ContextReuse = Literal["none", "x6", "x5", "x4"]
Stage = Literal["global", "local"]
Pool = Literal["max", "avg"]

#: Channels of X6 by backbone, which the network knows and the graphs' signatures need.
X6_CHANNELS: dict[Backbone, int] = {
    "topformer-base": 384,
    "topformer-small": 296,
    "topformer-tiny": 208,
    "seaformer-large": 320,
    "seaformer-base": 256,
    "seaformer-small": 192,
    "seaformer-tiny": 160,
    "mobilenetv2": 320,
    "resnet-50": 2048,
    "resnet-18": 512,
}
MASK_STRIDE = 8
SIZE_MULTIPLE = 64
#: Of a picture's side, and of queries and channels: beyond it a number is a slip or an attack.
LIMIT = 4096
#: Convolutions in a row; the paper has up to 4.
MAX_CONVOLUTIONS = 64
MAX_CLASSES = 1 << 16
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

Count = Annotated[int, Meta(ge=1, le=LIMIT)]
Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Tolerated = Annotated[float, Meta(ge=0, le=1e6)]
Agreement = Annotated[float, Meta(ge=0, le=1)]
Level = Annotated[float, Meta(ge=-1e6, le=1e6)]
Divisor = Annotated[float, Meta(ge=1e-6, le=1e6)]


@dataclass(frozen=True)
class Tolerance:
    """How far an exported graph may be from PyTorch. It lives with the model, in its model.toml.

    A tensor passes when every element satisfies ``|got - want| <= atol + rtol * |want| + of_largest
    * max|want|`` and its cosine similarity with the reference is at least ``min_cosine``.

    Attributes:
        atol: Absolute part, in the tensor's own unit (logits).
        rtol: Relative part, a ratio.
        of_largest: Part that grows with the tensor's largest element, a ratio. An element near 0 is
            a sum of large terms that cancel, and keeps their rounding.
        min_cosine: Lowest cosine similarity of the flattened tensors, at most 1.
        min_mask_iou: Lowest IoU, in [0, 1], of a thresholded mask with its reference.
        edge_logit: A mask logit this close to 0 is on the mask's edge: rounding decides its side.
        edge_score: A score this close to its threshold may fall on either side of it.
    """

    #: A probability within 0.005 of one half: no app can care.
    edge_logit: ClassVar[float] = 0.02
    edge_score: ClassVar[float] = 0.005

    atol: Tolerated = 1e-3
    rtol: Tolerated = 1e-3
    min_cosine: Agreement = 0.9999
    min_mask_iou: Agreement = 0.99
    of_largest: Tolerated = 0.0

    def __post_init__(self) -> None:
        check(self, ConfigError)

    def allowed(self, want: np.ndarray) -> np.ndarray:
        """How far each element of a tensor may be off; float64, of the reference's shape."""
        import numpy as np

        size = np.abs(np.asarray(want, np.float64))
        largest = float(size.max(initial=0.0))
        allowed: np.ndarray = self.atol + self.rtol * size + self.of_largest * largest
        return allowed


@dataclass(frozen=True)
class HalfTolerance(Tolerance):
    """What half-precision arithmetic may differ by, whatever the model.

    It rounds to 2^-11 of a value at each of some hundred layers, which makes mask logits of up to
    40 differ by up to 1.1 (docs/performance.md); a wrong layer is off by far more. Half of that is
    the edge within which rounding decides a pixel's side.
    """

    edge_logit: ClassVar[float] = 0.5
    edge_score: ClassVar[float] = 0.02

    atol: Tolerated = 1.0
    rtol: Tolerated = 0.05
    min_cosine: Agreement = 0.995
    min_mask_iou: Agreement = 0.9


HALF_TOLERANCE = HalfTolerance()


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
        decoder_block: What stands at each of the nine 3x3 convolutions of the paper's decoder:
            that convolution, or a depthwise 3x3 before a pointwise one, a ninth of its cost. The
            other decoders take no notice of it.
        enhancer: Whether the semantic enhancer is in the paper's mask decoder (Table 6).
        stages: Order of the instance decoder's stages (Table 3).
        pool: How the local stage pools the mask features (Table 5).
        pool_size: Kernel and stride of that pooling; 1 means none (Table 5).
        padding: How MobileNetV2's stride-2 convolutions pad an even side: evenly, as PyTorch's, or
            on the right and bottom alone, as TensorFlow's. Weights know only the one that they
            were trained with: ImageNet's from TensorFlow lose nine points of top-1 with the other.
        reuse_context: From which map on a reuse frame takes over what its keyframe computed: the
            paper's ``none``, ``x6`` alone, or from ``x5`` or ``x4`` on, of backbone and mask
            decoder. Any weights can be used either way.
        mean: Per-channel RGB mean subtracted inside the graph, in 0..255 units.
        std: Per-channel RGB divisor inside the graph, in 0..255 units.
    """

    backbone: Backbone
    classes: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_CLASSES)]
    input_size: tuple[Count, Count]
    num_queries: Count = 100
    width: Count = 256
    num_heads: Count = 8
    decoder: Decoder = "mobileinst"
    decoder_convs: Annotated[int, Meta(ge=1, le=MAX_CONVOLUTIONS)] = 4
    decoder_block: DecoderBlock = "conv"
    enhancer: bool = True
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=MAX_CONVOLUTIONS)] = (
        "global",
        "local",
    )
    pool: Pool = "max"
    pool_size: Literal[1, 2, 4, 8] = 8
    padding: Padding = "even"
    reuse_context: ContextReuse = "none"
    mean: tuple[Level, Level, Level] = IMAGENET_MEAN
    std: tuple[Divisor, Divisor, Divisor] = IMAGENET_STD

    def __post_init__(self) -> None:
        check(self, ConfigError)
        if self.padding != "even" and self.backbone != "mobilenetv2":
            raise ConfigError(
                f"padding {self.padding!r} is not for the backbone {self.backbone}",
                'Leave it out, or use the backbone "mobilenetv2"',
            )
        if self.reuse_context != "none" and self.decoder != "mobileinst":
            raise ConfigError(
                f"reuse_context {self.reuse_context!r} is not for the decoder {self.decoder}",
                'Use "none", or the decoder "mobileinst"',
            )
        if self.reuse_context == "x6" and not self.enhancer:
            raise ConfigError(
                "reuse_context 'x6' has nothing to reuse: without the enhancer no reuse frame "
                "computes X6",
                'Use "none", "x5" or "x4"',
            )
        check_size(self.input_size)
        if self.width % self.num_heads or self.width % 4:
            raise ConfigError(
                f"width {self.width} is not a multiple of 4 and of num_heads {self.num_heads}",
                "Choose a width that both divide",
            )
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError("classes names one class twice", "Give every class its own name")

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
        blame = Blame("the model configuration", ConfigError, "Correct it")
        return convert(dict(data), cls, blame)


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
