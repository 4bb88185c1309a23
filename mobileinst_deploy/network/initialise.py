"""Initial weights: sensible for training from scratch, the same for the same seed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.network.topformer import KEY_DIM, Attention

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
def randomize_batchnorm(model: nn.Module, seed: int, pictures: Tensor | None = None) -> None:
    """Give every BatchNorm an affine part and statistics such as training leaves behind.

    A fresh BatchNorm is almost the identity: folding it wrongly would go unnoticed, and in eval
    mode activations grow unchecked until no mask has an edge. Here the affine parts are drawn at
    random, and the statistics are those of pictures passing through. Tests and untrained
    demonstrations call this.

    Args:
        model: A network that takes pictures (B, 3, H, W) in 0 to 255; changed in place.
        seed: Of its own generator; torch's global one is left alone.
        pictures: What passes through, (B, 3, H, W) in 0 to 255; None means noise.
            A large network is best conditioned on pictures like those it will see.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.uniform_(-0.3, 0.3, generator=generator)
    for module in model.modules():
        if isinstance(module, Attention):
            # TopFormer does not scale QK^T; unless its queries are small, as training makes them,
            # the softmax saturates and turns rounding errors into other results.
            module.to_q.bn.weight.mul_(KEY_DIM**-0.5)
            module.to_q.bn.bias.mul_(KEY_DIM**-0.5)
    if pictures is None:
        pictures = _noise(generator)

    was_training = model.training
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the statistics become this batch's, with nothing of the old ones
    model.train()(pictures)
    model.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _noise(generator: torch.Generator) -> Tensor:
    """Eight pictures (8, 3, 192, 192) in 0 to 255, as unlike each other as photographs are.

    Octaves of noise, from one colour for the whole picture to single pixels, at a contrast of its
    own. Pictures too much alike would give deep maps a variance that real pictures exceed.
    """
    n, side = 8, 192
    octaves = [torch.randn(n, 3, s, s, generator=generator) for s in (1, 4, 16, 64, side)]
    layers = [F.interpolate(o, (side, side), mode="bilinear", align_corners=False) for o in octaves]
    contrast = 8 + 48 * torch.rand(n, 1, 1, 1, generator=generator)
    return (128 + contrast * torch.stack(layers).sum(0)).clamp(0, 255)
