"""Small pieces that several peers share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.network.layers import static_shape
from mobileinst_deploy.network.mask_decoder import bin_means

BINS = (1, 2, 3, 6)


class ConvGN(nn.Conv2d):
    """A convolution without bias, then group normalisation under the name ``norm``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.GroupNorm(32, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, h, w) to (B, Cout, h, w)."""
        out: Tensor = self.norm(super().forward(x))
        return out


class PooledStage(nn.Sequential):
    """Means over a grid of bins, then a 1x1 convolution under the name ``1``."""

    def __init__(self, width: int, bins: int) -> None:
        super().__init__(nn.Identity(), nn.Conv2d(width, width // 4, 1))
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C/4, bins, bins)."""
        y: Tensor = self[1](bin_means(x, self.bins))
        return F.relu(y)


class PyramidPooling(nn.Module):
    """What a map is like as a whole and in its parts, put back beside it (SparseInst, FastInst)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(PooledStage(width, bins) for bins in BINS)
        self.bottleneck = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        h, w = static_shape(x)[-2:]
        parts = [
            F.interpolate(stage(x), (h, w), mode="bilinear", align_corners=False)
            for stage in self.stages
        ]
        return F.relu(self.bottleneck(torch.cat([*parts, x], dim=1)))
