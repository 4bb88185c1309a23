"""quantize: a pair of 8 bits, or of float16 weights, and its price."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, next_steps, note, progress_bar, show
from mobileinst_deploy.cli.options import Json, Output, PairFolder, only_with
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.text import ms_text

if TYPE_CHECKING:
    from mobileinst_deploy.quantize import Price


def quantize(
    folder: PairFolder,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures to calibrate on; every fourth is held out."),
    ] = None,
    output: Output = None,
    mask_iou: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="With --images: overlap with float32's masks to keep; 0 leaves nothing in float32 "
            "for it, default: 0.975.",
        ),
    ] = None,
    half_weights: Annotated[
        bool,
        typer.Option("--half-weights", help="Store float16 weights instead: half the file."),
    ] = False,
    json: Json = False,
) -> None:
    """Make an 8-bit pair, calibrated on your pictures, and show the price. Not the paper's way."""
    if half_weights == (images is not None):
        raise ConfigError(
            "8 bits need pictures, and float16 weights take none"
            if half_weights
            else "there are no pictures to calibrate on",
            "Give either --images DIR or --half-weights",
        )
    only_with("--images", images, {"--mask-iou": mask_iou})
    if images is None:
        _halve(folder, output, json)
    else:
        _to_int8(folder, images, output, mask_iou, json)


def _to_int8(
    folder: Path, images: Path, output: Path | None, mask_iou: float | None, json: bool
) -> None:
    from mobileinst_deploy.workflows.quantize import MASK_IOU, quantize as work

    with progress_bar() as progress:
        least = MASK_IOU if mask_iou is None else mask_iou
        done = work(folder, images, output, mask_iou=least, progress=progress)
    report, target = done.report, done.pair.folder
    note(done.note, "bold yellow")
    if not done.pair.trained:
        note("RANDOM weights: the overlap of masks means nothing.", "bold yellow")
    show(
        f"{report.quantized} convolutions in 8 bits; {len(report.rewritten)} in float32 because"
        f" Winograd is cheaper, {len(report.sensitive)} because masks suffered. On"
        f" {report.held_out} held-out pictures {report.masks} masks overlap float32's by"
        f" {report.mask_iou:.4f} (a tenth of them by less than {report.worst_mask_iou:.4f}), and"
        f" scores move by up to {report.score_change:.3f}.",
        json=json,
    )
    _tell_price(report.before, report.after, json)
    show(f"Wrote {target}.", json=json)
    next_steps(("bench", target, "--device qemu --count"), json=json)
    answer(done.to_dict(), json=json)


def _halve(folder: Path, output: Path | None, json: bool) -> None:
    from mobileinst_deploy.workflows.quantize import halve

    with progress_bar():
        done = halve(folder, output)
    _tell_price(done.before, done.after, json)
    target = done.pair.folder
    show(f"Wrote {target}.", json=json)
    next_steps(("verify", target), json=json)
    answer(done.to_dict(), json=json)


def _tell_price(before: Price, after: Price, json: bool) -> None:
    for role in before.bytes:
        megabytes = f"{before.bytes[role] / 1e6:.2f} MB to {after.bytes[role] / 1e6:.2f} MB"
        times = f"{ms_text(before.host_ms[role])} ms to {ms_text(after.host_ms[role])} ms"
        show(
            f"{role}: {megabytes}, {times} on this machine",
            json=json,
        )
