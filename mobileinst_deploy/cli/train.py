"""train: make weights."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.options import Json


def train(
    config: Annotated[Path, typer.Option("--config", help="The recipe, a train.toml.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the run: state, log and weights.")
    ],
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
        Path | None, typer.Option(help="Whole weights to start from, of the same model.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a model by a recipe. It may be interrupted at any moment and resumed.

    On several processes or GPUs: the same command under torchrun or accelerate launch.
    """
    from mobileinst_deploy.core.zoo import load_model_toml
    from mobileinst_deploy.train.config import read_train_config
    from mobileinst_deploy.train.loop import train as run
    from mobileinst_deploy.train.sources import open_sources

    recipe = read_train_config(config)
    near = config.parent / recipe.model
    entry = load_model_toml(str(near) if near.is_file() else recipe.model)
    source, held_out = open_sources(recipe.data, data or config.parent, entry.config)
    recipe = replace(recipe, model=entry.id)
    with progress_bar() as progress:
        report = run(
            recipe,
            entry.config,
            source,
            output,
            held_out=held_out,
            resume=resume,
            backbone=init,
            weights=weights,
            progress=progress,
        )
    if os.environ.get("RANK", "0") != "0":
        return  # under a launcher the first process speaks for all
    metrics = ", ".join(f"{k} {v:.3f}" for k, v in report.metrics.items() if k[:2] == "AP")
    done = f"{report.iterations} iterations"
    if report.loss is not None:
        rate = report.samples / max(report.seconds, 1e-9)
        done += f", loss {report.loss:.4f}, {rate:.1f} samples/s"
    people.print(done + (f", held-out {metrics}" if metrics else ""))
    if report.unreadable:
        people.print(f"{report.unreadable} samples could not be read and were replaced.")
    people.print(f"Weights: {report.weights}", markup=False)
    if json:
        print_json(report.to_dict())
