"""From a recipe to weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.core.zoo import ZooEntry, load_model_toml
from mobileinst_deploy.network.loading import weights_named
from mobileinst_deploy.training.config import TrainConfig, read_train_config
from mobileinst_deploy.training.launcher import processes
from mobileinst_deploy.training.sources import left_out, open_sources

if TYPE_CHECKING:
    # PyTorch takes seconds to load: what is wrong with a recipe or its data is said before.
    from mobileinst_deploy.training.loop import TrainReport
    from mobileinst_deploy.training.plan import TrainPlan

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def train(
    recipe: str | Path,
    output: str | Path,
    *,
    data: str | Path | None = None,
    resume: bool = False,
    init: str | Path | None = None,
    weights: str | Path | None = None,
    changes: Sequence[str] = (),
    progress: Progress = silent,
    notice: Callable[[str], None] | None = None,
) -> TrainReport:
    """Train a model by a recipe, or go on with a run that was interrupted.

    Args:
        recipe: The train.toml. A relative path of a model in it is seen from its own folder.
        output: Folder of the run: state, log and weights.
        data: What the recipe's data paths are relative to; None: the recipe's folder.
        resume: Whether to go on from the state in ``output``.
        init: Published backbone weights to start from.
        weights: Whole weights to start from: a file, a run's folder or a zoo id. They may know
            other classes; then the class head begins anew.
        changes: Fields of the recipe to change, as ``FIELD=VALUE``; see ``read_train_config``.
        progress: Told of every step.
        notice: Told, before the training begins, what of the annotations is left out and why.

    Raises:
        ConfigError: The recipe, the model or the folder cannot be used; memory ran out.
        CheckpointError: The weights to start from do not fit.
        DatasetError: The data cannot be read.
        OutputError: The folder cannot be written or is full.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> report = mobileinst.train("train.toml", "run")
        >>> report.weights.as_posix()
        'run/model.safetensors'
    """
    recipe = Path(recipe)
    _one_start(init, weights)
    processes()  # as the launcher says, or an error
    read, entry = _read(recipe, changes)
    source, held_out = open_sources(read.data, Path(data or recipe.parent), entry.config)
    if notice is not None:
        for part, kept in (("training", source), ("held-out", held_out)):
            for line in left_out(kept):
                notice(f"Left out of the {part} data: {line}.")
    with _torch_cache():
        from mobileinst_deploy.training.loop import train as run_recipe

        return run_recipe(
            replace(read, model=entry.id),
            entry.config,
            source,
            Path(output),
            held_out=held_out,
            resume=resume,
            backbone=None if init is None else Path(init),
            weights=None if weights is None else weights_named(weights),
            progress=progress,
        )


def plan(
    recipe: str | Path,
    output: str | Path,
    *,
    data: str | Path | None = None,
    resume: bool = False,
    init: str | Path | None = None,
    weights: str | Path | None = None,
    changes: Sequence[str] = (),
    progress: Progress = silent,
) -> TrainPlan:
    """What a training run would be: beginning, steps, samples, rates, time. Nothing is written.

    Args:
        recipe: The train.toml.
        output: As for :func:`train`.
        data: As for :func:`train`; the data need not be there.
        resume: As for :func:`train`.
        init: As for :func:`train`.
        weights: As for :func:`train`.
        changes: As for :func:`train`.
        progress: Told of every stage.

    Raises:
        ConfigError: The recipe, the model or the folder cannot be used.
        CheckpointError: The weights to start from do not fit.
        DatasetError: The annotations are there, but broken.
    """
    recipe = Path(recipe)
    _one_start(init, weights)
    read, entry = _read(recipe, changes)
    folder = Path(data or recipe.parent)
    from mobileinst_deploy.training.plan import plan_run

    return plan_run(
        replace(read, model=entry.id),
        entry.config,
        folder,
        Path(output),
        resume=resume,
        backbone=None if init is None else Path(init),
        weights=None if weights is None else weights_named(weights),
        progress=progress,
    )


def _one_start(init: str | Path | None, weights: str | Path | None) -> None:
    if weights is not None and init is not None:
        raise ConfigError(
            "--init gives a backbone and --weights a whole network, backbone included",
            "Give one of them",
        )


@contextmanager
def _torch_cache() -> Iterator[None]:
    """A place for what PyTorch keeps between compilations: its own would stay for good."""
    if _CACHE in os.environ:
        yield
        return
    with scratch_folder() as folder:
        os.environ[_CACHE] = str(folder)
        try:
            yield
        finally:
            os.environ.pop(_CACHE, None)


def _read(recipe: Path, changes: Sequence[str]) -> tuple[TrainConfig, ZooEntry]:
    """A recipe and its model, whose relative path is seen from the recipe's folder."""
    read = read_train_config(recipe, changes)
    near = recipe.parent / read.model
    return read, load_model_toml(str(near) if near.is_file() else read.model)
