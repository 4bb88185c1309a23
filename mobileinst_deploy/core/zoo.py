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

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any, TypeVar

from mobileinst_deploy.core.config import ModelConfig, Tolerance
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import sha256_of

MODEL_FILE = "model.toml"
_T = TypeVar("_T")


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
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable TOML: {error}", "Correct the file") from error
    try:
        return _read(path, data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.cause}", error.next_step) from error


def _read(path: Path, data: dict[str, Any]) -> ZooEntry:
    unknown = sorted(set(data) - {"id", "summary", "seed", "config", "tolerance", "weights"})
    if unknown:
        raise ConfigError(f"there are unknown fields: {', '.join(unknown)}", "Remove them")
    seed = _field(data, "seed", int, 0)
    if not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed {seed} is not from 0 to 2^63 - 1", "Choose another one")
    tolerance = _field(data, "tolerance", dict, {})
    foreign = sorted(set(tolerance) - {f.name for f in fields(Tolerance)})
    if foreign:
        raise ConfigError(f"tolerance has unknown fields: {', '.join(foreign)}", "Remove them")
    weights, sha256 = None, None
    if "weights" in data:
        named = _field(data, "weights", dict)
        name, sha256 = _field(named, "file", str), _field(named, "sha256", str)
        if PurePath(name).name != name:
            raise ConfigError("it names weights outside its folder", "Put them beside it")
        if (path.parent / name).is_file():
            weights = path.parent / name
            if sha256_of(weights) != sha256:
                raise ConfigError(
                    f"{name} is not the file that it names (sha256 differs)",
                    "Restore the file, or correct sha256 if you mean to replace the weights",
                )
    return ZooEntry(
        id=_field(data, "id", str),
        summary=_field(data, "summary", str, ""),
        config=ModelConfig.from_dict(_field(data, "config", dict)),
        tolerance=Tolerance(**tolerance),
        seed=seed,
        weights=weights,
        weights_sha256=sha256,
        folder=path.parent,
    )


def _field(table: dict[str, Any], name: str, kind: type[_T], default: _T | None = None) -> _T:
    value = table.get(name, default)
    if value is None:
        raise ConfigError(f"{name} is missing", "Compare it with a model.toml of the zoo")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(
            f"{name} is {str(value)[:40]!r}, not of the type that it should be",
            "Compare it with a model.toml of the zoo",
        )
    return value
