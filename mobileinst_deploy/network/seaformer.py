"""SeaFormer-Base (arXiv 2301.13156), without its segmentation head.

Module names follow the published checkpoints, so that those load key by key.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.network.layers import ConvBN, static_shape
from mobileinst_deploy.network.pyramid import Backbone, Pyramid
from mobileinst_deploy.network.topformer import (
    BlockSpec,
    ConvMlp,
    InvertedResidual,
    Transformer,
    TransformerBlock,
)

STEM_CHANNELS = 16
DEPTH = 4
NUM_HEADS = 8
VALUE_RATIO = 2
POSITION_LENGTH = 16


class StageSpec(NamedTuple):
    """A transformer's width, key dim and MLP ratio."""

    dim: int
    key_dim: int
    mlp_ratio: int


BLOCKS: tuple[tuple[BlockSpec, ...], ...] = (
    (BlockSpec(3, 1, 16, 1), BlockSpec(3, 4, 32, 2), BlockSpec(3, 3, 32, 1)),
    (BlockSpec(5, 3, 64, 2), BlockSpec(5, 3, 64, 1)),
    (BlockSpec(3, 3, 128, 2), BlockSpec(3, 3, 128, 1)),
    (BlockSpec(5, 4, 192, 2),),
    (BlockSpec(3, 6, 256, 2),),
)
TRANSFORMERS = (StageSpec(192, 16, 2), StageSpec(256, 24, 4))


class ConvStage(nn.Sequential):
    """A run of inverted residuals, ``layer1`` upwards, after the stem if it is the first stage."""

    def __init__(self, in_channels: int, blocks: tuple[BlockSpec, ...], stem: bool = False) -> None:
        super().__init__()
        if stem:
            self.stem_block = nn.Sequential(ConvBN(3, in_channels, 3, 2), nn.ReLU())
        for i, block in enumerate(blocks, start=1):
            self.add_module(f"layer{i}", InvertedResidual(in_channels, block))
            in_channels = block.channels


class AxialPosition(nn.Module):
    """A learned position embedding along one axis, stretched to the axis' length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, POSITION_LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, length) to the same shape."""
        length = static_shape(x)[-1]
        return x + F.interpolate(self.pos_embed, size=length, mode="linear", align_corners=False)


class SqueezeAxialAttention(nn.Module):
    """Attention along rows and along columns of the squeezed map, beside a convolution branch."""

    def __init__(self, dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_dim = key_dim
        self.value_dim = VALUE_RATIO * key_dim
        keys, values = key_dim * NUM_HEADS, self.value_dim * NUM_HEADS
        self.to_q = ConvBN(dim, keys)
        self.to_k = ConvBN(dim, keys)
        self.to_v = ConvBN(dim, values)
        self.proj = nn.Sequential(nn.ReLU6(), ConvBN(values, dim))
        self.proj_encode_row = nn.Sequential(nn.ReLU6(), ConvBN(values, values))
        self.pos_emb_rowq = AxialPosition(keys)
        self.pos_emb_rowk = AxialPosition(keys)
        self.proj_encode_column = nn.Sequential(nn.ReLU6(), ConvBN(values, values))
        self.pos_emb_columnq = AxialPosition(keys)
        self.pos_emb_columnk = AxialPosition(keys)
        mixed = 2 * keys + values
        self.dwconv = ConvBN(mixed, mixed, 3, groups=mixed)
        self.act = nn.ReLU6()
        self.pwconv = ConvBN(mixed, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        detail = self.pwconv(self.act(self.dwconv(torch.cat([q, k, v], dim=1))))
        # Row attention squeezes the width away and the column attention the height.
        rows = self._attend(
            self.pos_emb_rowq(q.mean(-1)), self.pos_emb_rowk(k.mean(-1)), v.mean(-1)
        )
        columns = self._attend(
            self.pos_emb_columnq(q.mean(-2)), self.pos_emb_columnk(k.mean(-2)), v.mean(-2)
        )
        context = self.proj_encode_row(rows.unsqueeze(-1)) + self.proj_encode_column(
            columns.unsqueeze(-2)
        )
        out: Tensor = F.hardsigmoid(self.proj(v + context)) * detail
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One axis: q and k (B, heads*key_dim, L), v (B, heads*value_dim, L) to v's shape."""
        b, values, length = static_shape(v)
        q = q.reshape(b, NUM_HEADS, self.key_dim, length).permute(0, 1, 3, 2)
        k = k.reshape(b, NUM_HEADS, self.key_dim, length)
        v = v.reshape(b, NUM_HEADS, self.value_dim, length).permute(0, 1, 3, 2)
        weights = (torch.matmul(q, k) * self.key_dim**-0.5).softmax(dim=-1)
        return torch.matmul(weights, v).permute(0, 1, 3, 2).reshape(b, values, length)


class SeaFormer(Backbone):
    """SeaFormer-Base: X3 and X4 from convolutions, X5 and X6 from its two transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (64, 128, 192, 256)
        self.smb1 = ConvStage(STEM_CHANNELS, BLOCKS[0], stem=True)
        self.smb2 = ConvStage(BLOCKS[0][-1].channels, BLOCKS[1])
        self.smb3 = ConvStage(BLOCKS[1][-1].channels, BLOCKS[2])
        self.smb4 = ConvStage(BLOCKS[2][-1].channels, BLOCKS[3])
        self.smb5 = ConvStage(BLOCKS[3][-1].channels, BLOCKS[4])
        self.trans1 = _transformer(TRANSFORMERS[0])
        self.trans2 = _transformer(TRANSFORMERS[1])

    def forward(self, image: Tensor, depth: int = 6) -> Pyramid:
        """See :meth:`Backbone.forward`."""
        x3 = self.smb2(self.smb1(image))
        x4 = self.smb3(x3) if depth > 3 else None
        x5 = self.trans1(self.smb4(x4)) if depth > 4 else None
        x6 = self.trans2(self.smb5(x5)) if depth > 5 else None
        return Pyramid(x3, x4, x5, x6)


def _transformer(spec: StageSpec) -> Transformer:
    return Transformer(
        [
            TransformerBlock(
                SqueezeAxialAttention(spec.dim, spec.key_dim),
                ConvMlp(spec.dim, spec.dim * spec.mlp_ratio),
            )
            for _ in range(DEPTH)
        ]
    )
