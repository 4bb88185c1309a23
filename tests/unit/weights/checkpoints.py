"""A tiny network with weights, and how its tests hold it against files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.network import MobileInst, build_model, randomize_batchnorm

TINY = replace(tiny.TINY, classes=("cat", "dog"), num_queries=3)


def trained(config: ModelConfig = TINY, seed: int = 1) -> MobileInst:
    model = build_model(config, seed)
    randomize_batchnorm(model, seed)
    return model


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone()
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def assert_same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    left, right = weights_of(a), weights_of(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def refusal(load: Callable[[MobileInst, Path], None], path: Path, config=TINY) -> CheckpointError:
    """The error of a load that must leave the model as it was."""
    model = build_model(config)
    before = weights_of(model)
    with pytest.raises(CheckpointError) as caught:
        load(model, path)
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(str(caught.value)) < 2000
    assert "\n" not in str(caught.value)
    return caught.value
