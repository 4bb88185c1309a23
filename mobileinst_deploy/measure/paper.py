"""The paper's latencies, and whether a measurement may stand beside one of them.

Source: arXiv 2303.17594v2, COCO and YouTube-VIS results and Table 4; Snapdragon 778G, one core,
TNN. Sizes are those after padding to a multiple of 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.needs import Description
from mobileinst_deploy.measure.device import PAPER_SOC, DeviceFacts

_COCO, _VIS = 80, 40
_TOPFORMER, _SEAFORMER, _MOBILENET = "topformer-base", "seaformer-base", "mobilenetv2"


@dataclass(frozen=True)
class PaperRow:
    """One published latency.

    Attributes:
        name: How the paper calls it.
        backbone: Of the model.
        classes: Their number.
        size: (height, width) in pixels, padded.
        clip_length: T.
        ms: Milliseconds a frame.
    """

    name: str
    backbone: str
    classes: int
    size: tuple[int, int]
    clip_length: int
    ms: float


ROWS = (
    # The released model first: it is the nearest row of a model that is like none of them.
    PaperRow("COCO, TopFormer, 640", _TOPFORMER, _COCO, (640, 896), 1, 433),
    PaperRow("COCO, MobileNetV2, 640", _MOBILENET, _COCO, (640, 896), 1, 410),
    PaperRow("COCO, TopFormer, 512", _TOPFORMER, _COCO, (512, 896), 1, 346),
    PaperRow("COCO, SeaFormer, 640", _SEAFORMER, _COCO, (640, 896), 1, 438),
    PaperRow("YouTube-VIS, TopFormer, T = 1 (Table 4)", _TOPFORMER, _VIS, (384, 640), 1, 184),
    PaperRow("YouTube-VIS, TopFormer, T = 3 (Table 4)", _TOPFORMER, _VIS, (384, 640), 3, 174),
    PaperRow("YouTube-VIS, TopFormer, T = 6 (Table 4)", _TOPFORMER, _VIS, (384, 640), 6, 171),
)


@dataclass(frozen=True)
class Comparison:
    """Which published rows a measurement may be read beside.

    Attributes:
        rows: Those whose model, size and SoC are the measured ones; empty when something differs.
        nearest: The row that differs in the fewest things.
        differs: What differs from it, one clause each; empty when ``rows`` is not.
    """

    rows: tuple[PaperRow, ...]
    nearest: PaperRow
    differs: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The comparison for people."""
        if self.rows:
            return (
                "model, size and SoC are the paper's; it ran TNN, whose default precision is fp16"
                " where the chip has it, and this is another runtime in fp32"
            )
        return (
            f"not comparable with the paper's {self.nearest.ms:g} ms ({self.nearest.name}): "
            + "; ".join(self.differs)
        )


def compare_with_paper(
    config: Description, facts: DeviceFacts, also: Sequence[str] = ()
) -> Comparison:
    """Find the published rows of a model, or say why there is none.

    Args:
        config: What was measured.
        facts: Where.
        also: What else differs from every row, one clause each.
    """
    differences = [(row, (*_differences(row, config, facts), *also)) for row in ROWS]
    nearest, differs = min(differences, key=lambda pair: len(pair[1]))
    return Comparison(tuple(row for row, d in differences if not d), nearest, differs)


def _differences(row: PaperRow, config: Description, facts: DeviceFacts) -> tuple[str, ...]:
    found = [] if isinstance(config, ModelConfig) else ["another network instead of MobileInst"]
    if facts.kind == "host":
        found.append("this is a host and no phone")
    elif facts.emulated:
        found.append("this device is emulated")
    elif facts.soc != PAPER_SOC:
        found.append(f"SoC {facts.soc or 'unknown'} instead of {PAPER_SOC}")
    if isinstance(config, ModelConfig) and config.backbone != row.backbone:
        found.append(f"backbone {config.backbone} instead of {row.backbone}")
    if config.num_classes != row.classes:
        found.append(f"{config.num_classes} classes instead of {row.classes}")
    if config.input_size != row.size:
        shown = "x".join(map(str, config.input_size))
        found.append(f"size {shown} instead of {'x'.join(map(str, row.size))}")
    if not isinstance(config, ModelConfig):
        return tuple(found)
    released = ModelConfig(config.backbone, config.classes, config.input_size)
    for name in (
        "num_queries", "width", "num_heads", "decoder", "enhancer", "stages", "pool", "pool_size"
    ):  # fmt: skip
        mine, theirs = getattr(config, name), getattr(released, name)
        if mine != theirs:
            found.append(f"{name} {mine} instead of {theirs}")
    return tuple(found)
