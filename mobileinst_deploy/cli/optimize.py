"""optimize and quantize: another pair from an exported one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar

if TYPE_CHECKING:
    from mobileinst_deploy.bundle import ExportBundle
    from mobileinst_deploy.optimize.pair import GraphReport

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
PairFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder written by export.")]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder to write; default: beside DIR, with a suffix."),
]


def optimize(folder: PairFolder, output: Output = None, json: Json = False) -> None:
    """Rewrite both graphs so that a phone executes fewer instructions for the same numbers."""
    from mobileinst_deploy.bundle import load_bundle
    from mobileinst_deploy.optimize.pair import optimize_pair

    target = output or _beside(folder, "optimized")
    source = load_bundle(folder)
    with progress_bar() as progress:
        pair, reports = optimize_pair(source, target, progress=progress)
    for report in reports:
        done = ", ".join(f"{p.name} {p.rewrites}" for p in report.passes if p.rewrites)
        people.print(
            f"{report.role}: {done or 'nothing to do'}. Outputs moved by at most"
            f" {report.max_abs:.2e}, {report.excess:.2f} of the tolerance"
            f" (Winograd tiles up to {report.largest_tile}).",
            markup=False,
            soft_wrap=True,
        )
    people.print(
        f"Wrote {target}. Prove it equal to PyTorch with `mobileinst verify {target}`, and count"
        f" with `mobileinst bench {target} --device qemu --count`.",
        markup=False,
        soft_wrap=True,
    )
    if json:
        print_json(optimized_document(pair, reports))


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
