"""SeaFormer (arXiv 2301.13156) in its four sizes, without their heads.

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

VALUE_RATIO = 2
POSITION_LENGTH = 16


class StageSpec(NamedTuple):
    """A transformer's width, key dim and MLP ratio."""

    dim: int
    key_dim: int
    mlp_ratio: int


class Spec(NamedTuple):
    """One size.

    Attributes:
        blocks: Of the five convolution stages.
        transformers: After the last stages, one each: after the last two, of Large the last three.
        depth: Blocks of each transformer.
        num_heads: Of its attention.
    """

    blocks: tuple[tuple[BlockSpec, ...], ...]
    transformers: tuple[StageSpec, ...]
    depth: int
    num_heads: int

    @property
    def stem_channels(self) -> int:
        """Channels of the stem's map, which the first block keeps."""
        return self.blocks[0][0].channels


def _blocks(
    widths: tuple[int, int, int, int, int, int], ratios: tuple[int, int, int]
) -> tuple[tuple[BlockSpec, ...], ...]:
    """The stages by their widths, the stem's first; ratios of the three that sizes differ in."""
    stem, c2, c3, c4, c5, c6 = widths
    first, second, fourth = ratios
    return (
        (BlockSpec(3, first, stem, 1), BlockSpec(3, 4, c2, 2), BlockSpec(3, second, c2, 1)),
        (BlockSpec(5, second, c3, 2), BlockSpec(5, second, c3, 1)),
        (BlockSpec(3, second, c4, 2), BlockSpec(3, second, c4, 1)),
        (BlockSpec(5, fourth, c5, 2),),
        (BlockSpec(3, 6, c6, 2),),
    )


SEAFORMERS = {
    "seaformer-tiny": Spec(
        _blocks((16, 16, 32, 64, 128, 160), (1, 3, 3)),
        (StageSpec(128, 16, 2), StageSpec(160, 24, 4)),
        depth=2,
        num_heads=4,
    ),
    "seaformer-small": Spec(
        _blocks((16, 24, 48, 96, 160, 192), (1, 3, 4)),
        (StageSpec(160, 16, 2), StageSpec(192, 24, 4)),
        depth=3,
        num_heads=6,
    ),
    "seaformer-base": Spec(
        _blocks((16, 32, 64, 128, 192, 256), (1, 3, 4)),
        (StageSpec(192, 16, 2), StageSpec(256, 24, 4)),
        depth=4,
        num_heads=8,
    ),
    "seaformer-large": Spec(
        _blocks((32, 64, 128, 192, 256, 320), (3, 4, 4)),
        (StageSpec(192, 16, 2), StageSpec(256, 20, 4), StageSpec(320, 24, 6)),
        depth=3,
        num_heads=8,
    ),
}


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

    def __init__(self, dim: int, key_dim: int, num_heads: int) -> None:
        super().__init__()
        self.key_dim = key_dim
        self.num_heads = num_heads
        self.value_dim = VALUE_RATIO * key_dim
        keys, values = key_dim * num_heads, self.value_dim * num_heads
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
        q = q.reshape(b, self.num_heads, self.key_dim, length).permute(0, 1, 3, 2)
        k = k.reshape(b, self.num_heads, self.key_dim, length)
        v = v.reshape(b, self.num_heads, self.value_dim, length).permute(0, 1, 3, 2)
        weights = (torch.matmul(q, k) * self.key_dim**-0.5).softmax(dim=-1)
        return torch.matmul(weights, v).permute(0, 1, 3, 2).reshape(b, values, length)


class SeaFormer(Backbone):
    """SeaFormer: X3 from convolutions, X5 and X6 from its last two transformers.

    X4 is a convolution stage's, and of Large that of a transformer, too.

    Args:
        name: ``seaformer-tiny``, ``-small``, ``-base`` or ``-large``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        spec = SEAFORMERS[name]
        _, c3, c4, c5, c6 = (stage[-1].channels for stage in spec.blocks)
        self.channels = (c3, c4, c5, c6)
        channels = spec.stem_channels
        for number, blocks in enumerate(spec.blocks, start=1):
            self.add_module(f"smb{number}", ConvStage(channels, blocks, stem=number == 1))
            channels = blocks[-1].channels
        self.first = len(spec.blocks) - len(spec.transformers)
        for number, stage in enumerate(spec.transformers, start=1):
            self.add_module(f"trans{number}", _transformer(stage, spec.depth, spec.num_heads))

    def forward(self, image: Tensor, depth: int = 6) -> Pyramid:
        """See :meth:`Backbone.forward`."""
        x, maps = image, []
        for number in range(1, depth):
            x = self.get_submodule(f"smb{number}")(x)
            if number > self.first:
                x = self.get_submodule(f"trans{number - self.first}")(x)
            maps.append(x)
        return Pyramid(*maps[1:])


def _transformer(spec: StageSpec, depth: int, num_heads: int) -> Transformer:
    return Transformer(
        [
            TransformerBlock(
                SqueezeAxialAttention(spec.dim, spec.key_dim, num_heads),
                ConvMlp(spec.dim, spec.dim * spec.mlp_ratio),
            )
            for _ in range(depth)
        ]
    )
