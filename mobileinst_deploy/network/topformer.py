"""TopFormer's token pyramid and its transformer at 1/64 (arXiv 2204.05525), without the SIM.

Module names follow the published checkpoints, so that those load key by key. MobileInst reads the
pyramid and the transformer's output directly; the semantic injection module and everything after it
are not built (the MAC ledger excludes them).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.network.layers import ConvBN, static_shape
from mobileinst_deploy.network.pyramid import Backbone, Pyramid


class BlockSpec(NamedTuple):
    """One inverted residual: depthwise kernel size, expansion, output channels, stride."""

    kernel_size: int
    expand: int
    channels: int
    stride: int


class TopFormerSpec(NamedTuple):
    """One member of the family (TopFormer paper, table of architectures).

    Attributes:
        blocks: The inverted residuals after the 16-channel stem.
        taps: Indices of the blocks whose outputs are the maps at 1/4, 1/8, 1/16 and 1/32.
        num_heads: Heads of the transformer.
    """

    blocks: tuple[BlockSpec, ...]
    taps: tuple[int, int, int, int]
    num_heads: int


STEM_CHANNELS = 16
DEPTH = 4
KEY_DIM = 16
VALUE_DIM = 32
MLP_RATIO = 2


def _base_like(c2: int, c3: int, c4: int, c5: int) -> tuple[BlockSpec, ...]:
    return (
        BlockSpec(3, 1, STEM_CHANNELS, 1),
        BlockSpec(3, 4, c2, 2),
        BlockSpec(3, 3, c2, 1),
        BlockSpec(5, 3, c3, 2),
        BlockSpec(5, 3, c3, 1),
        BlockSpec(3, 3, c4, 2),
        BlockSpec(3, 3, c4, 1),
        BlockSpec(5, 6, c5, 2),
        BlockSpec(5, 6, c5, 1),
        BlockSpec(3, 6, c5, 1),
    )


TOPFORMERS = {
    "topformer-base": TopFormerSpec(_base_like(32, 64, 128, 160), (2, 4, 6, 9), 8),
    "topformer-small": TopFormerSpec(_base_like(24, 48, 96, 128), (2, 4, 6, 9), 6),
    "topformer-tiny": TopFormerSpec(_base_like(16, 32, 64, 96)[:-1], (2, 4, 6, 8), 4),
}


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, linear pointwise projection."""

    def __init__(self, in_channels: int, spec: BlockSpec) -> None:
        super().__init__()
        hidden = in_channels * spec.expand
        layers: list[nn.Module] = []
        if spec.expand != 1:
            layers += [ConvBN(in_channels, hidden), nn.ReLU()]
        layers += [
            ConvBN(hidden, hidden, spec.kernel_size, spec.stride, groups=hidden),
            nn.ReLU(),
            ConvBN(hidden, spec.channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = spec.stride == 1 and in_channels == spec.channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, h, w) to (B, Cout, h/stride, w/stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class TokenPyramid(nn.Module):
    """The stem and the inverted residuals, called ``stem`` and ``layer1`` upwards."""

    def __init__(self, spec: TopFormerSpec) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, STEM_CHANNELS, 3, 2), nn.ReLU())
        self.taps = spec.taps
        self.layers: list[str] = []
        channels = STEM_CHANNELS
        for i, block in enumerate(spec.blocks, start=1):
            self.layers.append(f"layer{i}")
            self.add_module(self.layers[-1], InvertedResidual(channels, block))
            channels = block.channels

    def forward(self, image: Tensor, count: int = 4) -> list[Tensor]:
        """(B, 3, H, W) to the first ``count`` of the maps at 1/4, 1/8, 1/16 and 1/32."""
        x = self.stem(image)
        maps: list[Tensor] = []
        for i, name in enumerate(self.layers[: self.taps[count - 1] + 1]):
            x = self.get_submodule(name)(x)
            if i in self.taps:
                maps.append(x)
        return maps


class Attention(nn.Module):
    """Self-attention over all positions of a map; QK^T is not scaled, as published."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = ConvBN(dim, KEY_DIM * num_heads)
        self.to_k = ConvBN(dim, KEY_DIM * num_heads)
        self.to_v = ConvBN(dim, VALUE_DIM * num_heads)
        self.proj = nn.Sequential(nn.ReLU6(), ConvBN(VALUE_DIM * num_heads, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        b, _, h, w = static_shape(x)
        q = self.to_q(x).reshape(b, self.num_heads, KEY_DIM, h * w).permute(0, 1, 3, 2)
        k = self.to_k(x).reshape(b, self.num_heads, KEY_DIM, h * w)
        v = self.to_v(x).reshape(b, self.num_heads, VALUE_DIM, h * w).permute(0, 1, 3, 2)
        y = torch.matmul(torch.matmul(q, k).softmax(dim=-1), v)
        y = y.permute(0, 1, 3, 2).reshape(b, self.num_heads * VALUE_DIM, h, w)
        out: Tensor = self.proj(y)
        return out


class ConvMlp(nn.Module):
    """Pointwise, depthwise 3x3, ReLU6, pointwise; shared with SeaFormer."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = ConvBN(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.ReLU6()
        self.fc2 = ConvBN(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        out: Tensor = self.fc2(self.act(self.dwconv(self.fc1(x))))
        return out


class TransformerBlock(nn.Module):
    """Attention and MLP, each with a residual; shared with SeaFormer."""

    def __init__(self, attn: nn.Module, mlp: ConvMlp) -> None:
        super().__init__()
        self.attn = attn
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        x = x + self.attn(x)
        x = x + self.mlp(x)
        return x


class Transformer(nn.Module):
    """A stack of blocks, called ``transformer_blocks``; shared with SeaFormer."""

    def __init__(self, blocks: list[TransformerBlock]) -> None:
        super().__init__()
        self.transformer_blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        out: Tensor = self.transformer_blocks(x)
        return out


class TopFormer(Backbone):
    """TopFormer-Base, -Small or -Tiny as MobileInst uses it.

    X3, X4 and X5 are the pyramid's maps; X6 is the transformer over all four maps (1/4 to 1/32),
    average-pooled to 1/64 and concatenated.

    Args:
        name: ``topformer-base``, ``topformer-small`` or ``topformer-tiny``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        spec = TOPFORMERS[name]
        c2, c3, c4, c5 = (spec.blocks[i].channels for i in spec.taps)
        dim = c2 + c3 + c4 + c5
        self.channels = (c3, c4, c5, dim)
        self.tpm = TokenPyramid(spec)
        self.trans = Transformer(
            [
                TransformerBlock(Attention(dim, spec.num_heads), ConvMlp(dim, dim * MLP_RATIO))
                for _ in range(DEPTH)
            ]
        )

    def forward(self, image: Tensor, depth: int = 6) -> Pyramid:
        """See :meth:`Backbone.forward`."""
        maps = self.tpm(image, min(depth, 5) - 1)
        if depth < 6:
            return Pyramid(*maps[1:])
        # 1/4 to 1/32 are pooled to 1/64: windows of 16, 8, 4 and 2 positions.
        pooled = [F.avg_pool2d(x, 16 >> i) for i, x in enumerate(maps)]
        _, x3, x4, x5 = maps
        return Pyramid(x3, x4, x5, self.trans(torch.cat(pooled, dim=1)))
