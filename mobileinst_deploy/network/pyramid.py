"""What every backbone gives: four maps at 1/8, 1/16, 1/32 and 1/64 of the picture."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Pyramid(NamedTuple):
    """The maps X3 to X6 (paper section 3.1).

    Attributes:
        x3: (B, C3, H/8, W/8).
        x4: (B, C4, H/16, W/16); like all deeper ones, None where it was not asked for.
        x5: (B, C5, H/32, W/32).
        x6: (B, C6, H/64, W/64).
    """

    x3: Tensor
    x4: Tensor | None = None
    x5: Tensor | None = None
    x6: Tensor | None = None


class Backbone(nn.Module):
    """A backbone's interface.

    Attributes:
        channels: (C3, C4, C5, C6), the channels of the four maps.
    """

    channels: tuple[int, int, int, int]

    @abstractmethod
    def forward(self, image: Tensor, depth: int = 6) -> Pyramid:
        """Compute the maps.

        Args:
            image: (B, 3, H, W), normalised, H and W multiples of 64.
            depth: The deepest map that is needed, 3 to 6; what only deeper ones need does not run.
        """

    @staticmethod
    def own_name(published: str) -> str:
        """A tensor's name here, from its name in a published file; unknown ones stay as they are.

        Args:
            published: May begin with what a file wraps a network in.
        """
        return published
