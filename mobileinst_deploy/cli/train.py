"""train: make weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mobileinst_deploy.cli.console import answer, next_steps, note, progress_bar, show
from mobileinst_deploy.cli.options import Json
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.run_folder import RECIPE_FILE


def train(
    config: Annotated[
        Path | None, typer.Option("--config", help="The recipe, a train.toml.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of the run: state, log and weights."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="Folder of the run, with its train.toml; in place of --config and -o.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="What the recipe's data paths are relative to; default: its folder."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the state in the output folder.")
    ] = False,
    init: Annotated[
        Path | None, typer.Option(help="Published backbone weights to start from.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Whole weights to start from, a file, a run or a zoo id; of other classes, all "
            "but the class head is taken."
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field: stages.0.batch=8; may be given several times."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be done, and how long it would take."),
    ] = False,
    json: Json = False,
) -> None:
    """Train a model by a recipe. It may be interrupted at any moment and resumed.

    On several processes or GPUs: the same command under torchrun or accelerate launch.
    """
    from mobileinst_deploy.workflows import train as workflow

    config, output = _places(run, config, output)
    given: dict[str, Any] = {
        "data": data,
        "resume": resume,
        "init": init,
        "weights": weights,
        "changes": change or (),
    }
    if dry_run:
        from mobileinst_deploy.cli.tables import plan_table

        with progress_bar() as progress:
            planned = workflow.plan(config, output, **given, progress=progress)
        show(plan_table(planned), json=json)
        show(f"{planned.begins}.", json=json)
        answer(planned.to_dict(), json=json)
        return
    with progress_bar() as progress:
        report = workflow.train(config, output, **given, progress=progress, notice=note)
    if os.environ.get("RANK", "0") != "0":
        return  # under a launcher the first process speaks for all
    metrics = ", ".join(f"{k} {v:.3f}" for k, v in report.metrics.items() if k[:2] == "AP")
    done = f"{report.iterations} iterations"
    if report.loss is not None:
        rate = report.samples / max(report.seconds, 1e-9)
        done += f", loss {report.loss:.4f}, {rate:.1f} samples/s"
        done += f", waiting for data {report.waiting:.0%} of the time"
    show(done + (f", held-out {metrics}" if metrics else ""), json=json)
    if report.anew:
        note(f"The weights know other classes; these began anew: {', '.join(report.anew)}.")
    if report.unreadable:
        note(f"{report.unreadable} samples could not be read and were replaced.")
    if report.note:
        note(f"Note: {report.note}.")
    show(f"Weights: {report.weights}", json=json)
    next_steps(("export", output), json=json)
    answer(report.to_dict(), json=json)


def _places(run: Path | None, config: Path | None, output: Path | None) -> tuple[Path, Path]:
    """The recipe and the run's folder."""
    if None not in (run, config, output):
        raise ConfigError(
            f"{run} is not needed beside --config and -o",
            "Give the run's folder, or --config and -o",
        )
    config = config or (run / RECIPE_FILE if run is not None else None)
    output = output or run
    if config is None or output is None:
        raise ConfigError(
            "it is not said what to train",
            "Give a run's folder, as `mobileinst new` writes it, or --config and -o",
        )
    return config, output
