"""CrossVIS (arXiv 2104.05970): CondInst for video, whose cells also say who they are.

One more tower gives every cell 256 numbers that are alike for one object in all frames; the authors
match frames by them. Here they ride at the end of the kernel: the masks do not read them, and
kernel association, which compares kernels, does. Learning across frames changes weights alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileinst_deploy.network.kernel_network import Features
from mobileinst_deploy.network.peers.attention import tokens
from mobileinst_deploy.network.peers.backbones import PeerBackbone
from mobileinst_deploy.network.peers.condinst import CONVS, PYRAMID, CellHead, CondInst, GroupConv

IDENTITY = 256


class IdentifyingHead(CellHead):
    """CondInst's head, and an embedding of each cell's identity."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.reid_tower = nn.Sequential(*(m for _ in range(CONVS) for m in GroupConv()))
        self.reid_pred = nn.Conv2d(PYRAMID, IDENTITY, 1)
        self.reid_pred_bn = nn.BatchNorm2d(IDENTITY)

    def identities(self, maps: list[Tensor]) -> Tensor:
        """Five maps to (B, M, 256)."""
        towers = (self.reid_tower(x) for x in maps)
        return torch.cat([tokens(self.reid_pred_bn(self.reid_pred(x))) for x in towers], 1)


class CrossVis(CondInst):
    """CrossVIS. Mask features are at 1/8, mask logits at 1/4.

    Args:
        backbone: Which one; its maps at 1/8, 1/16 and 1/32 are read.
        classes: Class names.
        input_size: (height, width), multiples of 32, with TopFormer of 64.
        num_queries: N, the cells that are worth a kernel.
    """

    def __init__(
        self,
        backbone: PeerBackbone,
        classes: tuple[str, ...],
        input_size: tuple[int, int],
        num_queries: int = 200,
    ) -> None:
        super().__init__(backbone, classes, input_size, num_queries, IDENTITY)
        self.cell_head = IdentifyingHead(len(classes))

    @property
    def identifying(self) -> IdentifyingHead:
        """The cell head, by its own type."""
        assert isinstance(self.cell_head, IdentifyingHead)  # noqa: S101  # it is made above
        return self.cell_head

    def own_name(self, name: str) -> str | None:
        """The authors' names, which are AdelaiDet's; their classifier of identities trains only."""
        return None if name.startswith("cls.") else super().own_name(name)

    def cells(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`CondInst.cells`; each kernel ends with the cell's identity."""
        logits, centres, kernels = super().cells(features)
        identities = self.identifying.identities(features.memory)
        return logits, centres, torch.cat([kernels, identities], -1)
