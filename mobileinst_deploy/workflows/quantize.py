"""From an exported pair to one of 8 bits, or of float16 weights, with its price."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.bundle import NOT_THE_PAPER, ExportBundle, load_bundle
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.optimize.beside_int8 import WinogradBesideInt8
from mobileinst_deploy.quantize import (
    Price,
    QuantizeReport,
    halve_pair,
    quantize_pair,
    read_pictures,
)
from mobileinst_deploy.workflows.optimize import derived_folder

#: Mean overlap with float32's masks that is kept unless told otherwise.
MASK_IOU = 0.975


@dataclass(frozen=True)
class Quantized:
    """A pair in 8 bits.

    Attributes:
        pair: The new one.
        report: What that took, and its price.
        note: What a reader must know of it.
    """

    pair: ExportBundle
    report: QuantizeReport
    note: str = NOT_THE_PAPER["int8"]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "folder": str(self.pair.folder),
            "pair_id": self.pair.pair_id,
            "note": self.note,
            "trained": self.pair.trained,
            **asdict(self.report),
        }


@dataclass(frozen=True)
class Halved:
    """A pair with float16 weights.

    Attributes:
        pair: The new one.
        before: The price of the one that it was made from.
        after: Its own.
    """

    pair: ExportBundle
    before: Price
    after: Price

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        prices = {"before": asdict(self.before), "after": asdict(self.after)}
        return {"folder": str(self.pair.folder), "pair_id": self.pair.pair_id, **prices}


def quantize(
    folder: Path,
    images: Path,
    output: Path | None = None,
    *,
    mask_iou: float = MASK_IOU,
    progress: Progress = silent,
) -> Quantized:
    """Make an 8-bit pair, calibrated on a folder of pictures.

    Args:
        folder: The float32 pair's.
        images: The pictures; every fourth is held out of calibration.
        output: Folder to write; None: beside the pair, with ``-int8`` added.
        mask_iou: Mean overlap with float32's masks to keep, in [0, 1].
        progress: Told of each step.

    Raises:
        BundleError: The pair was optimised or quantised before.
        MediaError: Fewer than four pictures, or one that cannot be read.
        VerificationFailed: The overlap cannot be kept.
        OutputError: The folder cannot be written or holds something else.
    """
    target = derived_folder(folder, output, "int8")
    source = load_bundle(folder)
    pair, report = quantize_pair(
        source,
        target,
        read_pictures(images, source.config.input_size),
        min_mask_iou=mask_iou,
        rewriter=WinogradBesideInt8(),
        progress=progress,
    )
    return Quantized(pair, report)


def halve(folder: Path, output: Path | None = None) -> Halved:
    """Store a pair's weights as float16: half the file, the same arithmetic.

    Args:
        folder: The pair's.
        output: Folder to write; None: beside the pair, with ``-half`` added.

    Raises:
        BundleError: Its weights are halved already.
        OutputError: The folder cannot be written or holds something else.
    """
    target = derived_folder(folder, output, "half")
    return Halved(*halve_pair(load_bundle(folder), target))
