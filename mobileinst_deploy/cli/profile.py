"""profile: share of time per part of the network and per operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.cli.options import Json, PairFolder, Report, Serial

if TYPE_CHECKING:
    from mobileinst_deploy.workflows.profile import ProfileReport


def profile(
    folder: PairFolder,
    device: Annotated[str, typer.Option(help="Where to profile: cpu or adb.")] = "cpu",
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each graph that count.")] = 20,
    serial: Serial = None,
    core: Annotated[
        str | None, typer.Option(help="adb: auto, prime, little or a number; default: auto.")
    ] = None,
    report: Report = None,
    json: Json = False,
) -> None:
    """Show where both graphs spend their time: per part of the network, per operator.

    Measured by ONNX Runtime's own profiler on one core; it makes runs a little slower, so for
    latency use bench. The result is kept under the pair, where report finds it.
    """
    from mobileinst_deploy.workflows.profile import profile as work

    with progress_bar() as progress:
        found, kept = work(
            folder,
            device=device,
            runs=runs,
            serial=serial,
            core=core,
            report=report,
            progress=progress,
        )
    _show(found, json)
    if kept.note is not None:
        note(f"Note: {kept.note}.", "yellow")
    answer(found.to_dict(), json=json)


def _show(report: ProfileReport, json: bool) -> None:
    """A table by part and one by operator, both graphs side by side."""
    from rich.table import Table

    def cells(name: str, kind: str) -> list[str]:
        found: list[str] = []
        for graph in report.graphs.values():
            rows = graph.parts if kind == "part" else graph.operators
            row = next((r for r in rows if r.name == name), None)
            if row is None:
                found += ["", "", ""]
            elif report.emulated:
                found += ["emulated", "emulated", str(row.nodes)]
            else:
                found += [f"{row.ms:.3f}", f"{100 * row.share:.1f} %", str(row.nodes)]
        return found

    for kind in ("part", "operator"):
        table = Table(title=f"{report.model_id} on {report.device}, by {kind}")
        table.add_column(kind, no_wrap=True)
        for role in report.graphs:
            for column in (f"{role} ms", "share", "nodes"):
                table.add_column(column, justify="right")
        names = [
            row.name
            for graph in report.graphs.values()
            for row in (graph.parts if kind == "part" else graph.operators)
        ]
        for name in dict.fromkeys(names):
            table.add_row(name, *cells(name, kind))
        show(table, json=json)
    core = "" if report.core is None else f", core {report.core}"
    show(
        f"{report.runtime}{core}; medians over the runs; ms and shares of the time inside nodes",
        json=json,
    )
    if report.emulated:
        note("EMULATED: its times are no phone's, and so are not shown.")
