"""From a recipe to weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.zoo import load_model_toml
from mobileinst_deploy.training.config import read_train_config
from mobileinst_deploy.training.loop import TrainReport, train as run_recipe
from mobileinst_deploy.training.sources import left_out, open_sources


def train(
    recipe: str | Path,
    output: str | Path,
    *,
    data: str | Path | None = None,
    resume: bool = False,
    init: str | Path | None = None,
    weights: str | Path | None = None,
    progress: Progress = silent,
    tell: Callable[[str], object] = lambda _: None,
) -> TrainReport:
    """Train a model by a recipe, or go on with a run that was interrupted.

    Args:
        recipe: The train.toml. A relative path of a model in it is seen from its own folder.
        output: Folder of the run: state, log and weights.
        data: What the recipe's data paths are relative to; None: the recipe's folder.
        resume: Whether to go on from the state in ``output``.
        init: Published backbone weights to start from.
        weights: Whole weights to start from, of the same model.
        progress: Told of every step.
        tell: Told, before the first step, what of the data cannot be learnt from.

    Raises:
        ConfigError: The recipe, the model or the folder cannot be used; memory ran out.
        CheckpointError: The weights to start from do not fit.
        DatasetError: The data cannot be read.
        OutputError: The folder cannot be written or is full.

    Example:
        >>> import mobileinst_deploy as mobileinst
        >>> report = mobileinst.train("train.toml", "run")
        >>> report.weights.as_posix()
        'run/model.safetensors'
    """
    recipe = Path(recipe)
    if weights is not None and init is not None:
        raise ConfigError(
            "--init gives a backbone and --weights a whole network, backbone included",
            "Give one of them",
        )
    read = read_train_config(recipe)
    near = recipe.parent / read.model
    entry = load_model_toml(str(near) if near.is_file() else read.model)
    source, held_out = open_sources(read.data, Path(data or recipe.parent), entry.config)
    for part, clips in (("training", source), ("held-out", held_out)):
        for line in left_out(clips):
            tell(f"Left out of the {part} data: {line}.")
    return run_recipe(
        replace(read, model=entry.id),
        entry.config,
        source,
        Path(output),
        held_out=held_out,
        resume=resume,
        backbone=None if init is None else Path(init),
        weights=None if weights is None else Path(weights),
        progress=progress,
    )
