"""The mask decoders of Table 6: from the backbone's pyramid to mask features at 1/8.

``mobileinst`` is the paper's (section 3.2); ``fpn`` and ``sparseinst`` are what it is compared
with. Each takes the raw pyramid, so that a decoder's cost includes its own input projections.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.config import DecoderBlock, ModelConfig
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


class MaskDecoder(nn.Module):
    """A mask decoder's interface.

    Attributes:
        needs_x6: Whether it reads X6; without that, reuse frames skip the backbone's last part.
    """

    needs_x6: bool = False

    @abstractmethod
    def forward(self, pyramid: Pyramid) -> Tensor:
        """The pyramid to mask features (B, D, H/8, W/8)."""


class InputProjections(nn.Module):
    """X3, X4 and X5 to D channels each: 1x1 convolution, BN, ReLU."""

    def __init__(self, channels: Channels, width: int) -> None:
        super().__init__()
        self.x3 = ConvBNReLU(channels[0], width)
        self.x4 = ConvBNReLU(channels[1], width)
        self.x5 = ConvBNReLU(channels[2], width)

    def forward(self, pyramid: Pyramid) -> tuple[Tensor, Tensor, Tensor]:
        """The pyramid to three maps (B, D, ...) at 1/8, 1/16 and 1/32."""
        return self.x3(pyramid.x3), self.x4(pyramid.x4), self.x5(pyramid.x5)


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

    Args:
        channels: Of X3 to X6.
        width: D.
        enhancer: Whether the two semantic enhancers at 1/32 are there (Table 6).
        block: The 3x3 convolutions' kind.
    """

    def __init__(
        self, channels: Channels, width: int, enhancer: bool, block: DecoderBlock = "conv"
    ) -> None:
        super().__init__()
        self.needs_x6 = enhancer
        self.projections = InputProjections(channels, width)
        self.enhance_x5 = SemanticEnhancer(width, channels[3]) if enhancer else None
        self.enhance_n5 = SemanticEnhancer(width, channels[3]) if enhancer else None

        def fuse() -> nn.Module:
            return (
                SeparableConvBNReLU(width) if block == "separable" else ConvBNReLU(width, width, 3)
            )

        self.p5, self.p4, self.p3 = fuse(), fuse(), fuse()
        self.n3, self.n4, self.n5 = fuse(), fuse(), fuse()
        self.m5, self.m4, self.m3 = fuse(), fuse(), fuse()

    def forward(self, pyramid: Pyramid) -> Tensor:
        """See :meth:`MaskDecoder.forward`."""
        x3, x4, x5 = self.projections(pyramid)
        p5 = self.p5(_enhance(self.enhance_x5, x5, pyramid.x6))
        p4 = self.p4(x4 + resize_like(p5, x4))
        p3 = self.p3(x3 + resize_like(p4, x3))
        n3 = self.n3(p3)
        n4 = self.n4(p4 + resize_like(n3, p4))
        n5 = self.n5(p5 + resize_like(n4, p5))
        m5 = self.m5(_enhance(self.enhance_n5, n5, pyramid.x6))
        m4 = self.m4(n4 + resize_like(m5, n4))
        out: Tensor = self.m3(n3 + resize_like(m4, n3))
        return out


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

    def forward(self, pyramid: Pyramid) -> Tensor:
        """See :meth:`MaskDecoder.forward`."""
        x3, x4, x5 = self.projections(pyramid)
        x4 = x4 + resize_like(x5, x4)
        x3 = x3 + resize_like(x4, x3)
        fused = self.p3(x3) + resize_like(self.p4(x4), x3) + resize_like(self.p5(x5), x3)
        out: Tensor = self.head(fused)
        return out


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

    def forward(self, pyramid: Pyramid) -> Tensor:
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
        out: Tensor = self.head(self.convs(fused))
        return out


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
    return MobileInstMaskDecoder(channels, config.width, config.enhancer, config.decoder_block)
