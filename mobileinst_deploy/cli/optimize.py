"""optimize and quantize: another pair from an exported one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.options import Json, PairFolder
from mobileinst_deploy.core.errors import ConfigError

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.optimize.pair import GraphReport
    from mobileinst_deploy.quantize import Price

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder to write; default: beside DIR, with a suffix."),
]


def optimize(folder: PairFolder, output: Output = None, json: Json = False) -> None:
    """Rewrite both graphs so that a phone executes fewer instructions for the same numbers."""
    from mobileinst_deploy.core.bundle import load_bundle

    target = output or _beside(folder, "optimized")
    pair, reports = rewrite_pair(load_bundle(folder), target)
    _tell(
        f"Wrote {target}. Prove it equal to PyTorch with `mobileinst verify {target}`, and count"
        f" with `mobileinst bench {target} --device qemu --count`."
    )
    if json:
        print_json(optimized_document(pair, reports))


def quantize(
    folder: PairFolder,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures to calibrate on; every fourth is held out."),
    ] = None,
    output: Output = None,
    mask_iou: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Overlap with float32's masks to keep; 0 leaves nothing in float32 for it.",
        ),
    ] = 0.975,
    half_weights: Annotated[
        bool,
        typer.Option("--half-weights", help="Store float16 weights instead: half the file."),
    ] = False,
    json: Json = False,
) -> None:
    """Make an 8-bit pair, calibrated on your pictures, and show the price. Not the paper's way."""
    from mobileinst_deploy.core.bundle import load_bundle

    if half_weights == (images is not None):
        raise ConfigError(
            "8 bits need pictures, and float16 weights take none"
            if half_weights
            else "there are no pictures to calibrate on",
            "Give either --images DIR or --half-weights",
        )
    source = load_bundle(folder)
    if images is None:
        _halve(source, output or _beside(folder, "half"), json)
    else:
        _to_int8(source, output or _beside(folder, "int8"), images, mask_iou, json)


def rewrite_pair(
    source: ExportBundle, target: Path
) -> tuple[ExportBundle, tuple[GraphReport, ...]]:
    """Optimise a pair, and tell what that did to each of its graphs."""
    from mobileinst_deploy.optimize.pair import optimize_pair

    with progress_bar() as progress:
        pair, reports = optimize_pair(source, target, progress=progress)
    for report in reports:
        done = ", ".join(f"{p.name} {p.rewrites}" for p in report.passes if p.rewrites)
        _tell(
            f"{report.role}: {done or 'nothing to do'}. Outputs moved by at most"
            f" {report.max_abs:.2e}, {report.excess:.2f} of the tolerance"
            f" (Winograd tiles up to {report.largest_tile})."
        )
    return pair, reports


def _to_int8(source: ExportBundle, target: Path, images: Path, mask_iou: float, json: bool) -> None:
    from dataclasses import asdict

    from mobileinst_deploy.optimize.beside_int8 import WinogradBesideInt8
    from mobileinst_deploy.quantize import NOT_THE_PAPER, quantize_pair, read_pictures

    with progress_bar() as progress:
        pair, report = quantize_pair(
            source,
            target,
            read_pictures(images, source.config.input_size),
            min_mask_iou=mask_iou,
            rewriter=WinogradBesideInt8(),
            progress=progress,
        )
    people.print(NOT_THE_PAPER, style="bold yellow", markup=False)
    if not source.trained:
        people.print("RANDOM weights: the overlap of masks means nothing.", style="bold yellow")
    _tell(
        f"{report.quantized} convolutions in 8 bits; {len(report.rewritten)} in float32 because"
        f" Winograd is cheaper, {len(report.sensitive)} because masks suffered. On"
        f" {report.held_out} held-out pictures {report.masks} masks overlap float32's by"
        f" {report.mask_iou:.4f} (a tenth of them by less than {report.worst_mask_iou:.4f}), and"
        f" scores move by up to {report.score_change:.3f}."
    )
    _tell_price(report.before, report.after)
    _tell(f"Wrote {target}. Count with `mobileinst bench {target} --device qemu --count`.")
    if json:
        print_json(
            {
                "folder": str(target),
                "pair_id": pair.pair_id,
                "note": NOT_THE_PAPER,
                "trained": source.trained,
                **asdict(report),
            }
        )


def _halve(source: ExportBundle, target: Path, json: bool) -> None:
    from dataclasses import asdict

    from mobileinst_deploy.quantize import halve_pair

    pair, before, after = halve_pair(source, target)
    _tell_price(before, after)
    _tell(f"Wrote {target}. `mobileinst verify {target}` says what the rounding costs.")
    if json:
        document = {"before": asdict(before), "after": asdict(after)}
        print_json({"folder": str(target), "pair_id": pair.pair_id, **document})


def _tell_price(before: Price, after: Price) -> None:
    for role in before.bytes:
        _tell(
            f"{role}: {before.bytes[role] / 1e6:.2f} MB to {after.bytes[role] / 1e6:.2f} MB,"
            f" {before.host_ms[role]:.1f} ms to {after.host_ms[role]:.1f} ms on this machine"
        )


def _tell(text: str) -> None:
    people.print(text, markup=False, soft_wrap=True)


def optimized_document(pair: ExportBundle, reports: tuple[GraphReport, ...]) -> dict[str, Any]:
    """What ``optimize --json`` prints."""
    from dataclasses import asdict

    return {
        "folder": str(pair.folder),
        "pair_id": pair.pair_id,
        "bytes": {role: graph.bytes for role, graph in pair.graphs.items()},
        "graphs": {report.role: asdict(report) for report in reports},
    }


def _beside(folder: Path, suffix: str) -> Path:
    resolved = folder.resolve()
    return resolved.with_name(f"{resolved.name}-{suffix}")
