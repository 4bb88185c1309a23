"""What a run begins with: random weights, given ones, or the state of one that was interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import canonical_sha256
from mobileinst_deploy.network import MobileInst
from mobileinst_deploy.network.checkpoint import load_backbone, load_weights
from mobileinst_deploy.training.checkpoints import load_state
from mobileinst_deploy.training.config import TrainConfig
from mobileinst_deploy.training.objective import Objective


@dataclass(frozen=True)
class Beginning:
    """What a run begins with.

    Attributes:
        fingerprint: Of its configuration: what must be the same for it to be resumed.
        state: Of the run that goes on, as it was read; None for one that begins.
        anew: Tensors that whole weights of other classes could not give.
        note: Which weights of several in a file were taken; None where there was no choice.
    """

    fingerprint: str
    state: dict[str, Any] | None
    anew: tuple[str, ...] = ()
    note: str | None = None


def begin(
    config: TrainConfig,
    model: MobileInst,
    folder: Path,
    *,
    resume: bool,
    backbone: Path | None,
    weights: Path | None,
) -> Beginning:
    """Read what a run begins with, and put given weights into the model; nothing is written.

    Args:
        config: The recipe, with its epochs counted.
        model: As the recipe's seed makes it.
        folder: Of the run.
        resume: Whether to go on from the state in ``folder``.
        backbone: Published backbone weights to start from.
        weights: Whole weights to start from; they may know other classes.

    Raises:
        ConfigError: The folder holds a run that was not to be resumed, or one of another
            configuration.
        CheckpointError: The state is none, or the weights do not fit.
    """
    fingerprint = canonical_sha256([config.fingerprint(), model.config.to_dict()])
    state = load_state(folder, fingerprint)
    if state is not None and not resume:
        raise ConfigError(
            f"{folder} holds a run already", "Add --resume, or train into another folder"
        )
    anew: tuple[str, ...] = ()
    note = None
    if state is None and weights is not None:
        anew, note = load_weights(model, weights, other_classes=True)
    if state is None and backbone is not None:
        load_backbone(model, backbone)
    return Beginning(fingerprint, state, anew, note)


def fresh_optimizer(objective: Objective, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser as every run begins with it."""
    groups = parameter_groups(objective, config)
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay)


def parameter_groups(objective: Objective, config: TrainConfig) -> list[dict[str, Any]]:
    """The backbone apart, and no weight decay on biases, normalisation, queries and positions.

    Args:
        objective: What is trained.
        config: The recipe, with the learning rate of the backbone and the weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        multiplier = config.backbone_lr if name.startswith("model.backbone.") else 1.0
        free = parameter.ndim < 2 or name.endswith((".queries", ".positions"))
        decay = 0.0 if free else config.weight_decay
        groups.setdefault((multiplier, decay), []).append(parameter)
    return [
        {"params": parameters, "multiplier": multiplier, "weight_decay": decay}
        for (multiplier, decay), parameters in groups.items()
    ]
