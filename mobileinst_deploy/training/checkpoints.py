"""A run's state on disk: written whole or not at all, resumed only by the same configuration."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from mobileinst_deploy.core.errors import CheckpointError, ConfigError
from mobileinst_deploy.core.files import write_atomically

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
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["fingerprint"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is not the state of a training run", "Delete it to start again"
        ) from error
    if saved != fingerprint:
        raise ConfigError(
            f"{path} belongs to another training configuration",
            "Resume with the configuration it was started with, or train into another folder",
        )
    return dict(state)
