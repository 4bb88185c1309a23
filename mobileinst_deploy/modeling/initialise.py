"""Initial weights: sensible for training from scratch, the same for the same seed."""

from __future__ import annotations

import math

import torch
from torch import nn

CLASS_PRIOR = 0.01
HEAD_STD = 0.01


def initialise(model: nn.Module) -> None:
    """Draw every weight anew from torch's global generator.

    Convolutions get Kaiming's normal by fan-out, linear layers Xavier's uniform, normalisation the
    identity, and free parameters (queries, positions) a unit normal.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
        else:
            for parameter in module.parameters(recurse=False):
                nn.init.normal_(parameter)


def initialise_heads(class_head: nn.Linear, kernel_head: nn.Linear) -> None:
    """Start the heads where the losses are calm.

    Every class begins at probability 0.01, as focal loss wants (arXiv 1708.02002, section 4.1), and
    kernels begin small, so that the mask logits of D summed products do not saturate.
    """
    nn.init.normal_(class_head.weight, std=HEAD_STD)
    nn.init.constant_(class_head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    nn.init.normal_(kernel_head.weight, std=HEAD_STD)


@torch.no_grad()
def randomize_batchnorm(model: nn.Module, seed: int) -> None:
    """Give every BatchNorm statistics and an affine part such as training leaves behind.

    A fresh BatchNorm is almost the identity, so that folding it wrongly would go unnoticed. Tests
    and untrained demonstrations call this.

    Args:
        model: Changed in place.
        seed: Of its own generator.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if not isinstance(module, nn.BatchNorm2d):
            continue
        assert module.running_mean is not None  # noqa: S101
        assert module.running_var is not None  # noqa: S101
        n = module.num_features

        def draw(low: float, high: float, n: int = n) -> torch.Tensor:
            return torch.rand(n, generator=generator) * (high - low) + low

        module.running_mean.copy_(draw(-0.5, 0.5))
        module.running_var.copy_(draw(0.5, 2.0))
        module.weight.copy_(draw(0.5, 1.5))
        module.bias.copy_(draw(-0.3, 0.3))
