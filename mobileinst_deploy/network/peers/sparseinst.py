"""SparseInst with grouped instance activation maps (arXiv 2203.12827).

An encoder fuses three maps at 1/8. Each of N instances is a weighted mean of the features there,
by an activation map of its own; linear heads make its class, quality and kernel. Module names
follow the authors' code, so that checkpoints trained with it load key by key.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network.kernel_network import Decoded, Features, KernelNetwork
from mobileinst_deploy.network.layers import frozen_tensor, resize_like, static_shape
from mobileinst_deploy.network.peers.backbones import (
    PeerBackbone,
    build_peer_backbone,
    size_multiple,
)
from mobileinst_deploy.network.peers.coordinates import coordinates
from mobileinst_deploy.network.peers.layers import PyramidPooling
from mobileinst_deploy.network.peers.layouts import detectron2

WIDTH = 256
KERNEL_WIDTH = 128
GROUPS = 4
CONVS = 4
LEAST_WEIGHT = 1e-6


class Encoder(nn.Module):
    """The instance context encoder (section 3.2): three maps to one at 1/8."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        # From 1/32 to 1/8, as the published files number them.
        self.fpn_laterals = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in reversed(channels))
        self.fpn_outputs = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in channels)
        self.ppm = PyramidPooling(WIDTH)
        self.fusion = nn.Conv2d(3 * WIDTH, WIDTH, 1)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Maps at 1/8, 1/16, 1/32 to (B, 256, H/8, W/8)."""
        c5, c4, c3 = (f(x) for f, x in zip(self.fpn_laterals, reversed(maps), strict=True))
        p5 = self.ppm(c5)
        p4 = c4 + F.interpolate(p5, scale_factor=2, mode="nearest")
        p3 = c3 + F.interpolate(p4, scale_factor=2, mode="nearest")
        o5, o4, o3 = (f(x) for f, x in zip(self.fpn_outputs, (p5, p4, p3), strict=True))
        fused = torch.cat([o3, resize_like(o4, o3), resize_like(o5, o3)], dim=1)
        out: Tensor = self.fusion(fused)
        return out


def _convs(in_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(CONVS):
        layers += [nn.Conv2d(in_channels, WIDTH, 3, padding=1), nn.ReLU()]
        in_channels = WIDTH
    return nn.Sequential(*layers)


class InstanceBranch(nn.Module):
    """Activation maps to classes, qualities and kernels (section 3.3)."""

    def __init__(self, in_channels: int, num_queries: int, num_classes: int) -> None:
        super().__init__()
        wide = WIDTH * GROUPS
        self.inst_convs = _convs(in_channels)
        self.iam_conv = nn.Conv2d(WIDTH, num_queries * GROUPS, 3, padding=1, groups=GROUPS)
        self.fc = nn.Linear(wide, wide)
        self.cls_score = nn.Linear(wide, num_classes)
        self.mask_kernel = nn.Linear(wide, KERNEL_WIDTH)
        self.objectness = nn.Linear(wide, 1)

    def forward(self, x: Tensor) -> Decoded:
        """(B, 258, h, w) to N instances."""
        x = self.inst_convs(x)
        b, d, h, w = static_shape(x)
        weights = self.iam_conv(x).sigmoid().reshape(b, -1, h * w)
        # A sum as a product: pnnx loses a sum's axes.
        total = torch.matmul(weights, weights.new_ones(h * w, 1))
        weights = weights / total.clamp(min=LEAST_WEIGHT)
        means = torch.matmul(weights, x.reshape(b, d, h * w).transpose(1, 2))
        n = static_shape(means)[1] // GROUPS
        # An instance is the four groups' means side by side.
        means = means.reshape(b, GROUPS, n, d).transpose(1, 2).reshape(b, n, GROUPS * d)
        means = F.relu(self.fc(means))
        return Decoded(self.cls_score(means), self.objectness(means), self.mask_kernel(means))


class MaskBranch(nn.Module):
    """Features to mask features."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.mask_convs = _convs(in_channels)
        self.projection = nn.Conv2d(WIDTH, KERNEL_WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 258, h, w) to (B, 128, h, w)."""
        out: Tensor = self.projection(self.mask_convs(x))
        return out


class Decoder(nn.Module):
    """The two branches, which both read the features with two coordinates before them."""

    def __init__(self, num_queries: int, num_classes: int) -> None:
        super().__init__()
        self.inst_branch = InstanceBranch(WIDTH + 2, num_queries, num_classes)
        self.mask_branch = MaskBranch(WIDTH + 2)


class SparseInst(KernelNetwork):
    """SparseInst. Mask logits are at 1/8; the authors' code doubles them before its threshold.

    Args:
        backbone: Which one; its maps at 1/8, 1/16 and 1/32 are read.
        classes: Class names.
        input_size: (height, width), multiples of 32, with TopFormer of 64.
        num_queries: N.
    """

    def __init__(
        self,
        backbone: PeerBackbone,
        classes: tuple[str, ...],
        input_size: tuple[int, int],
        num_queries: int = 100,
    ) -> None:
        super().__init__(
            Needs(
                classes,
                input_size,
                num_queries,
                KERNEL_WIDTH,
                size_multiple=size_multiple(backbone),
                mask_threshold=0.45,
                maskness=True,
            )
        )
        self.backbone = build_peer_backbone(backbone)
        self.encoder = Encoder(self.backbone.channels[1:])
        self.decoder = Decoder(num_queries, len(classes))

    def own_name(self, name: str) -> str | None:
        """See :func:`detectron2`."""
        return detectron2(name)

    def features(self, image: Tensor) -> Features:
        """Mask features (B, 128, H/8, W/8); beside them what the instance branch reads."""
        x = self._encoded(image)
        return Features(self.decoder.mask_branch(x), x)

    def reuse_features(self, image: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """The mask features; the instance branch's convolutions do not run."""
        mask_features: Tensor = self.decoder.mask_branch(self._encoded(image))
        return mask_features

    def decode(self, features: Features) -> Decoded:
        """N instances."""
        decoded: Decoded = self.decoder.inst_branch(features.memory)
        return decoded

    def _encoded(self, image: Tensor) -> Tensor:
        _, c3, c4, c5 = self.backbone(self.normalise(image))
        x = self.encoder((c3, c4, c5))
        b, _, h, w = static_shape(x)
        return torch.cat([frozen_tensor(coordinates(h, w), x).expand(b, 2, h, w), x], dim=1)
