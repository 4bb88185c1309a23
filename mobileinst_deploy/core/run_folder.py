"""A run's folder, and what lies where in it.

::

    runs/cups/
      model.toml          the network                      written by  mobileinst new
      train.toml          the recipe                                   mobileinst new
      model.safetensors   the weights                                  mobileinst train
      training.csv, .svg  the log, and its curves                      mobileinst train
      training.pt         the state to go on from                      mobileinst train
      pair/               the exported pair                            mobileinst export
      pair-upright/       the same for upright pictures                mobileinst export --upright

Commands that need weights take the folder for its weights, those that need a pair for its pair.
"""

from __future__ import annotations

from pathlib import Path

RECIPE_FILE = "train.toml"
WEIGHTS_FILE = "model.safetensors"
LOG_FILE = "training.csv"
CURVES_FILE = "training.svg"
PAIR_FOLDER = "pair"


def upright_of(pair: Path) -> Path:
    """Where the pair for upright pictures lies that belongs to a pair: beside it."""
    absolute = pair_of(pair).absolute()
    return absolute.with_name(f"{absolute.name}-upright")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: it has a recipe or a log."""
    return any((folder / name).is_file() for name in (RECIPE_FILE, LOG_FILE))


def trained_weights(folder: Path) -> Path | None:
    """The weights of a run; None where it has none yet, or the folder is no run's."""
    weights = folder / WEIGHTS_FILE
    return weights if is_run(folder) and weights.is_file() else None


def pair_of(folder: Path) -> Path:
    """Where the pair of a run lies; a folder that is no run's is the pair's itself."""
    return folder / PAIR_FOLDER if is_run(folder) else folder
