"""The model zoo: ``model.toml`` files in ``models/``, and weights known by their sha256.

::

    id = "mobileinst-demo"
    summary = "one line for the table"
    seed = 0                      # of random weights, where there are no trained ones
    [config]                      # ModelConfig's fields
    [tolerance]                   # Tolerance's fields, optional
    [weights]                     # optional: absent means random weights
    file = "model.safetensors"
    sha256 = "..."
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated

from msgspec import Meta

from mobileinst_deploy.core.config import ModelConfig, Name, Seed, Tolerance
from mobileinst_deploy.core.documents import Blame, Sha256, read_toml
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.core.places import places

MODEL_FILE = "model.toml"


@dataclass(frozen=True)
class _Weights:
    file: Name
    sha256: Sha256


@dataclass(frozen=True)
class _ModelToml:
    """What a model.toml may hold."""

    id: Name
    config: ModelConfig
    summary: Annotated[str, Meta(max_length=1000)] = ""
    seed: Seed = 0
    tolerance: Tolerance = field(default_factory=Tolerance)
    weights: _Weights | None = None


@dataclass(frozen=True)
class ZooEntry:
    """One model of the zoo.

    Attributes:
        id: Its name on the command line.
        summary: One line for people.
        config: The network.
        tolerance: What ``verify`` allows its exports.
        seed: Of random weights.
        weights: The trained weights' file when it is there, else None.
        weights_sha256: What that file must hash to; None when the model has never been trained.
        folder: Where its model.toml lies.
    """

    id: str
    summary: str
    config: ModelConfig
    tolerance: Tolerance
    seed: int
    weights: Path | None
    weights_sha256: str | None
    folder: Path


def zoo_folder() -> Path:
    """The zoo: inside an installed package, or beside the package in a checkout.

    Raises:
        ConfigError: There is none, so the installation is broken.
    """
    package = Path(__file__).parent.parent
    for folder in (package / "_models", package.parent / "models"):
        if folder.is_dir():
            return folder
    raise ConfigError("the model zoo is missing from this installation", "Install mobileinst again")


def zoo_ids() -> list[str]:
    """Every id of the zoo, sorted."""
    return sorted(p.parent.name for p in zoo_folder().glob(f"*/{MODEL_FILE}"))


@places(0)
def load_model_toml(id_or_path: str) -> ZooEntry:
    """Find a model by its zoo id or by the path of its model.toml.

    Raises:
        ConfigError: No such model, or its file is broken.
    """
    if id_or_path in zoo_ids():
        path = zoo_folder() / id_or_path / MODEL_FILE
    else:
        path = Path(id_or_path)
        if path.is_dir():
            path = path / MODEL_FILE
    if not path.is_file():
        raise ConfigError(
            f"there is no model {id_or_path!r}",
            f"Use a path to a model.toml or one of {', '.join(zoo_ids())}",
        )
    blame = Blame(str(path), ConfigError, "Compare it with a model.toml of the zoo")
    data = read_toml(path, _ModelToml, blame)
    weights = None
    if data.weights is not None:
        name = data.weights.file
        if len(os.fsencode(name)) > 255:
            raise ConfigError(f"{path}: weights.file is longer than a file's name", "Shorten it")
        if PurePath(name).name != name:
            raise ConfigError(f"{path}: it names weights outside its folder", "Put them beside it")
        if (path.parent / name).is_file():
            weights = path.parent / name
            if sha256_of(weights) != data.weights.sha256:
                raise ConfigError(
                    f"{path}: {name} is not the file that it names (sha256 differs)",
                    "Restore the file, or correct sha256 if you mean to replace the weights",
                )
    return ZooEntry(
        id=data.id,
        summary=data.summary,
        config=data.config,
        tolerance=data.tolerance,
        seed=data.seed,
        weights=weights,
        weights_sha256=data.weights.sha256 if data.weights is not None else None,
        folder=path.parent,
    )
