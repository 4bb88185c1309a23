"""A network with fresh weights."""

from __future__ import annotations

import torch

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.network.initialise import initialise, initialise_heads
from mobileinst_deploy.network.limits import require_affordable
from mobileinst_deploy.network.mobileinst import MobileInst


def build_model(config: ModelConfig, seed: int = 0) -> MobileInst:
    """Build a network with fresh weights, in training mode.

    Args:
        config: What to build.
        seed: The same seed gives the same weights; torch's global generator is left as it was.

    Raises:
        ConfigError: It would have too many weights, or make too large tensors.
    """
    require_affordable(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MobileInst(config)
        initialise(model)
        initialise_heads(model.instance_decoder.class_head, model.instance_decoder.kernel_head)
    return model
