"""report: one HTML page of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, show
from mobileinst_deploy.cli.options import Json


def report(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="PAIR|RECORD|history ...",
            help="A pair's folder, a latency.json, what bench --json printed of several devices, "
            "`history`, or the name of one of its entries; several go into one page.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page, such as report.html.")],
    json: Json = False,
) -> None:
    """Write one HTML page of what was measured: it needs no network, and prints well.

    Latency distributions, what an average frame costs at every T, runs and clock over time, where
    the time goes, parity, instruction counts and AP: whatever of it there is.
    """
    from mobileinst_deploy.workflows.report import write_report

    path, found = write_report(source, output)
    size = path.stat().st_size
    show(f"{path}: {found.measured}, {size / 1e3:.0f} kB.", json=json)
    for cause in found.unreadable:
        note(f"Left out: {cause}.", "yellow")
    document = {
        "page": str(path),
        "bytes": size,
        "measurements": list(found.records),
        "left_out": list(found.unreadable),
    }
    answer(document, json=json)
