"""A tiny network with weights, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import trained

from mobileinst_deploy.network import MobileInst
from mobileinst_deploy.network.checkpoint import save_checkpoint


@pytest.fixture
def model() -> MobileInst:
    return trained()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, {"note": "five epochs"})
    return path
