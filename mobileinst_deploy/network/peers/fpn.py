"""The feature pyramid (arXiv 1612.03144) that the dense peers read."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Top = Literal["pool", "convolutions"]


class Fpn(nn.Module):
    """Maps at 1/s, 1/2s ... to as many of ``width`` channels, and one or two coarser ones.

    Args:
        channels: Of the maps that come in, finest first.
        width: Channels of those that go out.
        top: ``pool``: every second position of the coarsest map, once. ``convolutions``: two 3x3
            of stride 2, with a ReLU between them.
    """

    def __init__(self, channels: tuple[int, ...], width: int, top: Top) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.top = nn.ModuleList(
            nn.Conv2d(width, width, 3, 2, padding=1) for _ in range(2 * (top == "convolutions"))
        )

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """(B, C, ...) each, finest first, to (B, width, ...), finest first."""
        inner = [f(x) for f, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(inner) - 2, -1, -1):
            inner[i] = inner[i] + F.interpolate(inner[i + 1], scale_factor=2, mode="nearest")
        outer = [f(x) for f, x in zip(self.output, inner, strict=True)]
        if not self.top:
            return [*outer, F.max_pool2d(outer[-1], 1, 2)]
        p6 = self.top[0](outer[-1])
        return [*outer, p6, self.top[1](F.relu(p6))]
