"""A run's state on disk: written whole or not at all, resumed only by the same configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mobileinst_deploy.core.errors import CheckpointError, ConfigError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.places import places
from mobileinst_deploy.network.weights_file import read_pickle, unusual

STATE_FILE = "training.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of a run.

    Args:
        folder: Of the run.
        state: Tensors, numbers, strings, lists and dicts only.

    Raises:
        OutputError: The folder cannot be written or is full; the last state is still there.
    """
    write_atomically(folder / STATE_FILE, lambda temporary: _write(temporary, state))


def _write(path: Path, state: dict[str, Any]) -> None:
    # Through a file object: torch then reports a full disk as the system's own error.
    with path.open("wb") as file:
        torch.save(state, file)


@places(0)
def load_state(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read the state of a run.

    Args:
        folder: Of the run.
        fingerprint: Of the configuration that wants to resume it.

    Returns:
        The state, or None where the run has not saved one yet.

    Raises:
        CheckpointError: The file is no state of a run.
        ConfigError: It belongs to another configuration.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state = read_pickle(path)
    except CheckpointError as error:
        raise _no_state(path, f"it {error.cause.removeprefix(f'{path} ')}") from error
    if not isinstance(state, dict) or not isinstance(saved := state.get("fingerprint"), str):
        raise _no_state(path, "it names no configuration")
    if saved != fingerprint:
        raise ConfigError(
            f"{path} belongs to another training configuration",
            "Resume with the configuration it was started with, or train into another folder",
        )
    return dict(state)


def require_state_of(
    folder: Path,
    state: Mapping[str, Any],
    *,
    objective: nn.Module,
    optimizer: Any,
    average: Mapping[str, Tensor] | None,
    iterations: int,
) -> None:
    """Hold a state against the run that wants to go on from it, before any of it is taken.

    Args:
        folder: Of the run.
        state: From :func:`load_state`.
        objective: What is trained.
        optimizer: AdamW, as the run begins with it.
        average: The averaged weights as the run begins with them, if it has any.
        iterations: Of the whole run.

    Raises:
        CheckpointError: A part is missing, of another shape or type, or not finite.
    """
    path = folder / STATE_FILE
    iteration = state.get("iteration")
    if type(iteration) is not int or not 0 <= iteration <= iterations:
        raise _no_state(path, f"its iteration is not from 0 to {iterations}")
    _require_tensors(path, "objective", state.get("objective"), objective.state_dict())
    if average is not None:
        _require_tensors(path, "ema", state.get("ema"), average)
    found, own = state.get("optimizer"), optimizer.state_dict()
    if not isinstance(found, dict) or not _same_groups(found.get("param_groups"), own):
        raise _no_state(path, "its optimizer is another one")
    moments = found.get("state")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not isinstance(moments, dict) or not moments.keys() <= set(range(len(parameters))):
        raise _no_state(path, "its optimizer has moments of other parameters")
    for number, entry in moments.items():
        like = {"step": torch.zeros(()), "exp_avg": parameters[number]}
        like["exp_avg_sq"] = parameters[number]
        _require_tensors(path, f"optimizer of parameter {number}", entry, like)


def _same_groups(found: Any, own: Mapping[str, Any]) -> bool:
    """Whether an optimizer's groups are this run's, apart from the learning rate."""
    groups = own["param_groups"]
    if not isinstance(found, list) or len(found) != len(groups):
        return False
    return all(
        isinstance(a, dict)
        and a.keys() == b.keys()
        and isinstance(a["lr"], float)
        and all(type(a[k]) is type(b[k]) and a[k] == b[k] for k in b if k != "lr")
        for a, b in zip(found, groups, strict=True)
    )


def _require_tensors(path: Path, what: str, found: Any, like: Mapping[str, Tensor]) -> None:
    if not isinstance(found, dict) or found.keys() != like.keys():
        raise _no_state(path, f"its {what} has other parts than this run's")
    for name, wanted in like.items():
        tensor = found[name]
        if not isinstance(tensor, Tensor) or unusual(tensor):
            raise _no_state(path, f"its {what} has no tensor {name}")
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise _no_state(path, f"its {what} has {name} of another shape or type")
        if not bool(torch.isfinite(tensor).all()):
            raise _no_state(path, f"its {what} has {name} that is not finite")


def _no_state(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a whole state of a training run: {why}",
        "Delete it to start again, from --weights model.safetensors of that folder if you like",
    )
