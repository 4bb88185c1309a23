"""The mask decoders of Table 6: from the backbone's pyramid to mask features at 1/8.

``mobileinst`` is the paper's (section 3.2); ``fpn`` and ``sparseinst`` are what it is compared
with. Each takes the raw pyramid, so that a decoder's cost includes its own input projections.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.config import ContextReuse, DecoderBlock, ModelConfig
from mobileinst_deploy.network.layers import (
    ConvBN,
    ConvBNReLU,
    SeparableConvBNReLU,
    frozen_tensor,
    resize_like,
    static_shape,
)
from mobileinst_deploy.network.pyramid import Pyramid

Channels = tuple[int, int, int, int]


class MaskFeatures(NamedTuple):
    """What a mask decoder makes.

    Attributes:
        features: X_mask, (B, D, H/8, W/8).
        context: What a later frame may take over instead of computing it, see
            :class:`~mobileinst_deploy.core.config.ModelConfig`; empty without context reuse.
    """

    features: Tensor
    context: tuple[Tensor, ...] = ()


class MaskDecoder(nn.Module):
    """A mask decoder's interface.

    Attributes:
        depth: The deepest map of the pyramid that it reads, 5 or 6.
        reuse_depth: The deepest one that it reads when it is given a context, 3 to 6.
    """

    depth: int = 5
    reuse_depth: int = 5

    @abstractmethod
    def forward(self, pyramid: Pyramid, context: Sequence[Tensor] = ()) -> MaskFeatures:
        """The pyramid to mask features.

        Args:
            pyramid: As deep as ``depth``, or with a context as ``reuse_depth``.
            context: Of an earlier frame; empty computes everything anew.
        """


class InputProjections(nn.Module):
    """X3, X4 and X5 to D channels each: 1x1 convolution, BN, ReLU."""

    def __init__(self, channels: Channels, width: int) -> None:
        super().__init__()
        self.x3 = ConvBNReLU(channels[0], width)
        self.x4 = ConvBNReLU(channels[1], width)
        self.x5 = ConvBNReLU(channels[2], width)

    def forward(self, pyramid: Pyramid, deepest: int = 5) -> dict[int, Tensor]:
        """The pyramid to maps (B, D, ...) by level: 3 at 1/8, 4 at 1/16, 5 at 1/32."""
        maps = {3: self.x3(pyramid.x3)}
        if deepest > 3:
            maps[4] = self.x4(pyramid.x4)
        if deepest > 4:
            maps[5] = self.x5(pyramid.x5)
        return maps


class SemanticEnhancer(nn.Module):
    """Gates and shifts a 1/32 map by what X6 knows of the whole picture (paper section 3.2).

    ``BN(1x1 x) * hard_sigmoid(up(BN(1x1 X6))) + up(BN(1x1 X6))``, the two 1x1 of X6 distinct.
    """

    def __init__(self, width: int, x6_channels: int) -> None:
        super().__init__()
        self.local = ConvBN(width, width)
        self.gate = ConvBN(x6_channels, width)
        self.shift = ConvBN(x6_channels, width)

    def forward(self, x: Tensor, x6: Tensor) -> Tensor:
        """X (B, D, h, w) and X6 (B, C6, h/2, w/2) to X's shape."""
        gate = F.hardsigmoid(resize_like(self.gate(x6), x))
        out: Tensor = self.local(x) * gate + resize_like(self.shift(x6), x)
        return out


class MobileInstMaskDecoder(MaskDecoder):
    """The paper's decoder: top-down, bottom-up, top-down, nine 3x3 convolutions in all.

    With context reuse from level k on, a later frame takes over P_k and M_k, the results at that
    level of the two top-down passes, or X6 itself; it computes only what is shallower.

    Args:
        channels: Of X3 to X6.
        width: D.
        enhancer: Whether the two semantic enhancers at 1/32 are there (Table 6).
        block: The 3x3 convolutions' kind.
        reuse: From which level on a later frame may take over results.
    """

    def __init__(
        self,
        channels: Channels,
        width: int,
        enhancer: bool,
        block: DecoderBlock = "conv",
        reuse: ContextReuse = "none",
    ) -> None:
        super().__init__()
        self.reuse = reuse
        self.depth = 6 if enhancer else 5
        self.reuse_depth = self.depth if reuse == "none" else int(reuse[1:]) - 1
        self.projections = InputProjections(channels, width)
        self.enhance_x5 = SemanticEnhancer(width, channels[3]) if enhancer else None
        self.enhance_n5 = SemanticEnhancer(width, channels[3]) if enhancer else None

        def fuse() -> nn.Module:
            if block == "separable":
                return SeparableConvBNReLU(width)
            return ConvBNReLU(width, width, 3)

        self.p5, self.p4, self.p3 = fuse(), fuse(), fuse()
        self.n3, self.n4, self.n5 = fuse(), fuse(), fuse()
        self.m5, self.m4, self.m3 = fuse(), fuse(), fuse()

    def forward(self, pyramid: Pyramid, context: Sequence[Tensor] = ()) -> MaskFeatures:
        """See :meth:`MaskDecoder.forward`."""
        if context and self.reuse == "x6":
            pyramid = pyramid._replace(x6=context[0])
        p: dict[int, Tensor] = {}
        m: dict[int, Tensor] = {}
        deepest = 5
        if context and self.reuse != "x6":
            deepest = self.reuse_depth
            p[deepest + 1], m[deepest + 1] = context
        x = self.projections(pyramid, deepest)
        for level in range(deepest, 2, -1):
            if level == 5:
                p[5] = self.p5(_enhance(self.enhance_x5, x[5], pyramid.x6))
            else:
                p[level] = self._fuse(f"p{level}", x[level], p[level + 1])
        n = {3: self.n3(p[3])}
        for level in range(4, deepest + 1):
            n[level] = self._fuse(f"n{level}", p[level], n[level - 1])
        for level in range(deepest, 2, -1):
            if level == 5:
                m[5] = self.m5(_enhance(self.enhance_n5, n[5], pyramid.x6))
            else:
                m[level] = self._fuse(f"m{level}", n[level], m[level + 1])
        return MaskFeatures(m[3], self._context(pyramid, p, m))

    def _fuse(self, name: str, x: Tensor, other: Tensor) -> Tensor:
        fused: Tensor = self.get_submodule(name)(x + resize_like(other, x))
        return fused

    def _context(
        self, pyramid: Pyramid, p: Mapping[int, Tensor], m: Mapping[int, Tensor]
    ) -> tuple[Tensor, ...]:
        if self.reuse == "none":
            return ()
        if self.reuse == "x6":
            return (pyramid.x6,) if pyramid.x6 is not None else ()
        level = int(self.reuse[1:])
        return p[level], m[level]


def _enhance(enhancer: SemanticEnhancer | None, x: Tensor, x6: Tensor | None) -> Tensor:
    if enhancer is None or x6 is None:
        return x
    out: Tensor = enhancer(x, x6)
    return out


class FpnMaskDecoder(MaskDecoder):
    """Table 6's FPN: one top-down pass, two 3x3 per level, their sum at 1/8, two 1x1.

    The last 1x1 has its BN: without that the row would be 18.480 G and not 18.484.
    """

    def __init__(self, channels: Channels, width: int) -> None:
        super().__init__()
        self.projections = InputProjections(channels, width)

        def two() -> nn.Sequential:
            return nn.Sequential(ConvBNReLU(width, width, 3), ConvBNReLU(width, width, 3))

        self.p3, self.p4, self.p5 = two(), two(), two()
        self.head = nn.Sequential(ConvBNReLU(width, width), ConvBN(width, width))

    def forward(self, pyramid: Pyramid, context: Sequence[Tensor] = ()) -> MaskFeatures:
        """See :meth:`MaskDecoder.forward`."""
        x3, x4, x5 = self.projections(pyramid).values()
        x4 = x4 + resize_like(x5, x4)
        x3 = x3 + resize_like(x4, x3)
        fused = self.p3(x3) + resize_like(self.p4(x4), x3) + resize_like(self.p5(x5), x3)
        return MaskFeatures(self.head(fused))


class PyramidPooling(nn.Module):
    """Pool a map to 1, 2, 3 and 6 bins a side, mix, and put the results back beside it."""

    bins = (1, 2, 3, 6)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(width, width // 4, 1) for _ in self.bins)
        self.bottleneck = nn.Conv2d(width + len(self.bins) * (width // 4), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to the same shape."""
        h, w = static_shape(x)[-2:]
        parts = [
            F.interpolate(
                F.relu(stage(bin_means(x, bins))), (h, w), mode="bilinear", align_corners=False
            )
            for stage, bins in zip(self.stages, self.bins, strict=True)
        ]
        return F.relu(self.bottleneck(torch.cat([*parts, x], dim=1)))


def bin_means(x: Tensor, bins: int) -> Tensor:
    """Adaptive average pooling to (bins, bins).

    ONNX has no such pooling where the bins do not divide the map, so the exported graph holds it as
    two products with constant averaging matrices.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.adaptive_avg_pool2d(x, bins)
    h, w = static_shape(x)[-2:]
    rows = frozen_tensor(_averaging_matrix(h, bins), x)
    columns = frozen_tensor(_averaging_matrix(w, bins).T, x)
    return torch.matmul(torch.matmul(rows, x), columns)


def _averaging_matrix(length: int, bins: int) -> np.ndarray:
    """(bins, length) float32: row i averages the positions of torch's adaptive bin i."""
    matrix = np.zeros((bins, length), np.float32)
    for i in range(bins):
        start, stop = i * length // bins, -(-(i + 1) * length // bins)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


class SparseInstMaskDecoder(MaskDecoder):
    """Table 6's SparseInst: its instance-context encoder, then 1, 2 or 4 convolutions.

    The maps come to D channels first and then pass the encoder's own lateral convolutions, as if
    the encoder stood behind the same projections as the others: the MAC ledger shows both. Inside
    the encoder is no BN; that too is the ledger's.

    Args:
        channels: Of X3 to X6.
        width: D.
        convs: Number of 3x3 convolutions of the mask branch.
    """

    def __init__(self, channels: Channels, width: int, convs: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels[:3])
        self.laterals = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(3))
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.pooling = PyramidPooling(width)
        self.fusion = nn.Conv2d(3 * width, width, 1)
        self.convs = nn.Sequential(*(ConvBNReLU(width, width, 3) for _ in range(convs)))
        self.head = nn.Conv2d(width, width, 1)

    def forward(self, pyramid: Pyramid, context: Sequence[Tensor] = ()) -> MaskFeatures:
        """See :meth:`MaskDecoder.forward`."""
        maps = (pyramid.x3, pyramid.x4, pyramid.x5)
        x3, x4, x5 = (
            lateral(project(x))
            for lateral, project, x in zip(self.laterals, self.projections, maps, strict=True)
        )
        x5 = self.pooling(x5)
        x4 = x4 + F.interpolate(x5, scale_factor=2, mode="nearest")
        x3 = x3 + F.interpolate(x4, scale_factor=2, mode="nearest")
        levels = [out(x) for out, x in zip(self.outputs, (x3, x4, x5), strict=True)]
        fused = self.fusion(torch.cat([resize_like(x, x3) for x in levels], dim=1))
        return MaskFeatures(self.head(self.convs(fused)))


def build_mask_decoder(config: ModelConfig, channels: Channels) -> MaskDecoder:
    """The mask decoder a configuration asks for.

    Args:
        config: The model.
        channels: Channels of X3 to X6.
    """
    if config.decoder == "fpn":
        return FpnMaskDecoder(channels, config.width)
    if config.decoder == "sparseinst":
        return SparseInstMaskDecoder(channels, config.width, config.decoder_convs)
    return MobileInstMaskDecoder(
        channels, config.width, config.enhancer, config.decoder_block, config.reuse_context
    )
