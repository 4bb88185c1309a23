"""compare: several pairs in turn on one device, beside what they cost and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.cli.options import (
    ClipLengths,
    Json,
    Runs,
    Seconds,
    Serial,
    Warmup,
)


def compare(
    pairs: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders written by export.")
    ],
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime, ncnn or ncnn-fp16; several: each pair by all."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, adb; or qemu, for executed instructions alone.")
    ] = "cpu",
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The pair that the others are held against: the first."),
    ] = None,
    clip_lengths: ClipLengths = "1,3,6",
    runs: Runs = None,
    warmup: Warmup = None,
    seconds: Seconds = None,
    serial: Serial = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write AP over latency as SVG: the paper's Figure 1 of these pairs."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure several pairs in turn in one run on one device, and hold each against one of them.

    The table has latency, its ratio with an interval of confidence, multiply-accumulates, the
    instructions that `bench --count` counted before, and the AP of `evaluate`, where there is one.
    Under qemu nothing is a latency: there, what was not counted yet is counted.
    """
    from mobileinst_deploy.cli.tables import comparison_table
    from mobileinst_deploy.core.errors import ConfigError, MobileInstError
    from mobileinst_deploy.core.run_folder import pair_of
    from mobileinst_deploy.measure import protocol as protocols
    from mobileinst_deploy.workflows import compare as workflow, compare_figure
    from mobileinst_deploy.workflows.bench_targets import BenchSettings
    from mobileinst_deploy.workflows.kept import precision_of

    entries = workflow.open_entries(pairs, runtime or ["onnxruntime"])
    chosen = None
    if to is not None:
        meant = pair_of(to).resolve()
        chosen = next((e for e in entries if e.pair.folder.resolve() == meant), None)
        if chosen is None:
            raise ConfigError(f"{to} is none of the pairs", "Name one of them after --to")
    if plot is not None:
        compare_figure.check_plot(plot)
        compare_figure.check_plottable([precision_of(e.pair, e.runtime) for e in entries])
    settings = BenchSettings(
        protocols.protocol("sd778g", warmups=warmup, runs=runs, seconds=seconds),
        protocols.parse_clip_lengths(clip_lengths),
    )
    with progress_bar() as progress:
        found = workflow.compare(
            entries, settings, device=device, serial=serial, to=chosen, progress=progress
        )
    show(comparison_table(found), json=json)
    if found.forgotten is not None:
        note(f"Note: it is not in the history: {found.forgotten}.", "yellow")
    failure = found.failure
    if plot is not None:
        try:
            compare_figure.write_plot(found, plot)
        except MobileInstError as error:  # what was measured is told all the same
            failure = error
        else:
            missing = ", ".join(compare_figure.left_out(found))
            note(f"The plot is {plot}" + f"; {missing} was not evaluated" * bool(missing) + ".")
    answer(found.to_dict(), failure, json=json)
