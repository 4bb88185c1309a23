"""MobileInst as its one public reproduction builds it (Ambitious-idiot/MobileInst-Reproduction).

It differs from this project's network, which the paper's figures pin, in all but the idea:
TopFormer with its injection, no 3x3 in the last top-down pass, another enhancer, a feed-forward
network, kernels of 128. Whoever trained with it can deploy what they have. Pictures only: the
reproduction has no video.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network.instance_decoder import sine_position
from mobileinst_deploy.network.kernel_network import Decoded, Features, KernelNetwork
from mobileinst_deploy.network.layers import frozen_tensor, resize_like, static_shape
from mobileinst_deploy.network.peers.attention import (
    CrossAttention,
    FeedForward,
    SelfAttention,
    tokens,
)
from mobileinst_deploy.network.peers.backbones import TopFormerMaps
from mobileinst_deploy.network.peers.layouts import detectron2

WIDTH = 256
KERNEL_WIDTH = 128
NUM_HEADS = 8
HIDDEN = 512


class BiasedConvBN(nn.Sequential):
    """A convolution with bias, then BN, called ``c`` and ``bn``."""

    def __init__(self, in_channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_channels, WIDTH, kernel_size, padding=kernel_size // 2)
        self.bn = nn.BatchNorm2d(WIDTH)


def _with_relu(in_channels: int, kernel_size: int = 1) -> nn.Sequential:
    return nn.Sequential(BiasedConvBN(in_channels, kernel_size), nn.ReLU())


class Enhancer(nn.Module):
    """A map times and plus what the transformer knows, mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral_l = BiasedConvBN(WIDTH)
        self.lateral_g = BiasedConvBN(WIDTH)
        self.out_layer = BiasedConvBN(WIDTH)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Two maps (B, 256, h, w) to one."""
        gate = F.relu(self.lateral_g(context))
        return F.relu(self.out_layer(F.relu(self.lateral_l(x)) * gate + gate))


class Encoder(nn.Module):
    """Down, up and down again over three maps."""

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.injections = nn.ModuleList(_with_relu(c) for c in channels)
        self.se1 = Enhancer()
        self.conv1 = nn.ModuleList(_with_relu(WIDTH, 3) for _ in range(3))
        self.conv2 = nn.ModuleList(_with_relu(WIDTH, 3) for _ in range(3))
        self.se2 = Enhancer()

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Maps at 1/8 to 1/64 to features at 1/8, and context at 1/32."""
        x3, x4, x5, x6 = (f(x) for f, x in zip(self.injections, maps, strict=True))
        context = resize_like(x6, x5)
        p5 = self.se1(x5, context)
        p4 = x4 + resize_like(p5, x4)
        p3 = x3 + resize_like(p4, x3)
        p3, p4, p5 = (f(x) for f, x in zip(self.conv1, (p3, p4, p5), strict=True))
        n4 = p4 + resize_like(p3, p4)
        n5 = p5 + resize_like(n4, p5)
        n3, n4, n5 = (f(x) for f, x in zip(self.conv2, (p3, n4, n5), strict=True))
        m4 = n4 + resize_like(self.se2(n5, context), n4)
        return n3 + resize_like(m4, n3), context


class InstanceBranch(nn.Module):
    """Queries that attend to the context, then to the pooled features."""

    def __init__(self, num_queries: int, num_classes: int) -> None:
        super().__init__()
        self.g_proj = nn.Conv2d(WIDTH, WIDTH, 1)
        self.l_proj = nn.Conv2d(WIDTH, WIDTH, 1)
        self.g_d1 = CrossAttention(WIDTH, NUM_HEADS, norm_first=True)
        self.g_d2 = SelfAttention(WIDTH, NUM_HEADS, norm_first=True)
        self.l_d1 = CrossAttention(WIDTH, NUM_HEADS, norm_first=True)
        self.l_d2 = SelfAttention(WIDTH, NUM_HEADS, norm_first=True)
        self.mlp = FeedForward(WIDTH, HIDDEN, norm_first=True)
        self.decoder_norm = nn.LayerNorm(WIDTH)
        self.query_feat = nn.Embedding(num_queries, WIDTH)
        self.query_embed = nn.Embedding(num_queries, WIDTH)
        self.cls_score = nn.Linear(WIDTH, num_classes)
        self.objectness = nn.Linear(WIDTH, 1)
        self.mask_kernel = nn.Linear(WIDTH, KERNEL_WIDTH)

    def forward(self, features: Tensor, context: Tensor) -> Decoded:
        """Features (B, 256, H/8, W/8) and context (B, 256, H/32, W/32) to N instances."""
        h, w = static_shape(context)[-2:]
        where = frozen_tensor(sine_position(h, w, WIDTH)[None], context)
        far = tokens(self.g_proj(context))
        # Pooling by four brings 1/8 to the context's 1/32.
        near = tokens(self.l_proj(F.max_pool2d(features, 4)))
        place = self.query_embed.weight.unsqueeze(0)
        x = self.query_feat.weight.unsqueeze(0)
        x = self.g_d2(self.g_d1(x, far, place, where), place)
        x = self.l_d2(self.l_d1(x, near, place, where), place)
        x = self.decoder_norm(self.mlp(x))
        return Decoded(self.cls_score(x), self.objectness(x), self.mask_kernel(x))


class Decoder(nn.Module):
    """The branch for instances and the one for masks."""

    def __init__(self, num_queries: int, num_classes: int) -> None:
        super().__init__()
        self.inst_branch = InstanceBranch(num_queries, num_classes)
        self.mask_branch = nn.Conv2d(WIDTH, KERNEL_WIDTH, 1)


class ReproducedMobileInst(KernelNetwork):
    """The reproduction. Mask logits are at 1/8; its code doubles them before its threshold.

    Args:
        classes: Class names.
        input_size: (height, width), multiples of 64.
        num_queries: N.
    """

    def __init__(
        self, classes: tuple[str, ...], input_size: tuple[int, int], num_queries: int = 100
    ) -> None:
        super().__init__(
            Needs(
                classes,
                input_size,
                num_queries,
                KERNEL_WIDTH,
                size_multiple=64,
                mask_threshold=0.45,
                maskness=True,
            )
        )
        self.backbone = TopFormerMaps()
        dim = self.backbone.channels[0] + sum(self.backbone.splits)
        self.encoder = Encoder((*self.backbone.channels[1:], dim))
        self.decoder = Decoder(num_queries, len(classes))

    def own_name(self, name: str) -> str | None:
        """See :func:`detectron2`."""
        return detectron2(name)

    def features(self, image: Tensor) -> Features:
        """Mask features (B, 128, H/8, W/8); beside them what the instance branch reads."""
        _, *maps = self.backbone.with_tokens(self.normalise(image))
        local, context = self.encoder(tuple(maps))
        return Features(self.decoder.mask_branch(local), (local, context))

    def decode(self, features: Features) -> Decoded:
        """N instances."""
        decoded: Decoded = self.decoder.inst_branch(*features.memory)
        return decoded
