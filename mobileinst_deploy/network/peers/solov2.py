"""SOLOv2 and SOLOv2-Lite (arXiv 2003.10152): every cell of five grids proposes a kernel.

Kernels are plain: one matrix product with mask features at 1/4. Checkpoints of AdelaiDet (SOLOv2)
and of the authors' mmdetection (SOLOv2-Lite and SOLOv2) load.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network.kernel_network import Decoded, Features, KernelNetwork
from mobileinst_deploy.network.layers import frozen_tensor, static_shape
from mobileinst_deploy.network.peers.attention import tokens
from mobileinst_deploy.network.peers.backbones import (
    PeerBackbone,
    build_peer_backbone,
    size_multiple,
)
from mobileinst_deploy.network.peers.coordinates import coordinates
from mobileinst_deploy.network.peers.dense import OUT, best_cells
from mobileinst_deploy.network.peers.fpn import Fpn
from mobileinst_deploy.network.peers.layers import ConvGN
from mobileinst_deploy.network.peers.layouts import detectron2, pyramid

Origin = Literal["adelaidet", "mmdetection"]

PYRAMID = 256
MASK_BRANCH = 128
GRIDS = (40, 36, 24, 16, 12)


@dataclass(frozen=True)
class Variant:
    """What differs between SOLOv2 and SOLOv2-Lite.

    Attributes:
        head_width: Channels of the instance head.
        convs: Its 3x3 convolutions, in each of its two branches.
        kernel_width: D.
    """

    head_width: int
    convs: int
    kernel_width: int


FULL = Variant(512, 4, 256)
LITE = Variant(256, 2, 128)

_MMDETECTION = (
    (re.compile(r"^neck\.lateral_convs\.(\d)\.conv\."), r"fpn.lateral.\1."),
    (re.compile(r"^neck\.fpn_convs\.(\d)\.conv\."), r"fpn.output.\1."),
    (re.compile(r"^bbox_head\.(cate|kernel)_convs\.(\d)\.conv\."), r"ins_head.\1_tower.\2."),
    (re.compile(r"^bbox_head\.(cate|kernel)_convs\.(\d)\.gn\."), r"ins_head.\1_tower.\2.norm."),
    (re.compile(r"^bbox_head\.solo_(cate|kernel)\."), r"ins_head.\1_pred."),
    (re.compile(r"^mask_feat_head\."), "mask_branch."),
    (re.compile(r"^mask_branch\.conv_pred\.0\."), "mask_branch.conv_pred."),
    (re.compile(r"^(mask_branch\..*)\.conv\."), r"\1."),
    (re.compile(r"^(mask_branch\..*)\.gn\."), r"\1.norm."),
)
_ADELAIDET = (
    (re.compile(r"^(ins_head\.\w+_tower)\.(\d+)\."), lambda m: _in_tower(m[1], int(m[2]))),
    (re.compile(r"^mask_head\.(convs_all_levels\.\d\.conv\d|conv_pred)\.0\."), r"mask_branch.\1."),
    (
        re.compile(r"^mask_head\.(convs_all_levels\.\d\.conv\d|conv_pred)\.1\."),
        r"mask_branch.\1.norm.",
    ),
)


class InstanceHead(nn.Module):
    """Every level's map on a square grid, to class logits and kernels per cell."""

    def __init__(self, variant: Variant, num_classes: int) -> None:
        super().__init__()

        def tower(in_channels: int) -> nn.ModuleList:
            width = variant.head_width
            return nn.ModuleList(
                ConvGN(in_channels if i == 0 else width, width, 3) for i in range(variant.convs)
            )

        self.cate_tower = tower(PYRAMID)
        self.kernel_tower = tower(PYRAMID + 2)
        self.cate_pred = nn.Conv2d(variant.head_width, num_classes, 3, padding=1)
        self.kernel_pred = nn.Conv2d(variant.head_width, variant.kernel_width, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Five maps (B, 256, ...) to logits (B, M, C) and kernels (B, M, D), M cells in all."""
        logits, kernels = [], []
        for x, cells in zip(maps, GRIDS, strict=True):
            grid = (cells, cells)
            placed = F.interpolate(with_coordinates(x), grid, mode="bilinear", align_corners=False)
            classes = placed[:, :PYRAMID]
            for layer in self.cate_tower:
                classes = F.relu(layer(classes))
            for layer in self.kernel_tower:
                placed = F.relu(layer(placed))
            logits.append(tokens(_peaks(self.cate_pred(classes))))
            kernels.append(tokens(self.kernel_pred(placed)))
        return torch.cat(logits, 1), torch.cat(kernels, 1)


def with_coordinates(x: Tensor) -> Tensor:
    """A map with two more channels at its end: x, then y, each from -1 to 1."""
    b, _, h, w = static_shape(x)
    return torch.cat([x, frozen_tensor(coordinates(h, w), x).expand(b, 2, h, w)], dim=1)


def _peaks(logits: Tensor) -> Tensor:
    """Rule out every cell that is outdone by its neighbour on the left, above or diagonally."""
    highest = F.max_pool2d(logits, 2, 1, padding=1)[:, :, :-1, :-1]
    peak = (highest == logits).to(logits)
    return logits * peak + OUT * (1 - peak)


class MaskHead(nn.Module):
    """Four maps to mask features at 1/4: each is convolved and doubled until it fits, and added."""

    def __init__(self, kernel_width: int) -> None:
        super().__init__()
        self.convs_all_levels = nn.ModuleList()
        for level in range(4):
            # The coarsest map also says where it is.
            in_channels = PYRAMID + 2 * (level == 3)
            convs = nn.ModuleDict()
            for j in range(max(level, 1)):
                convs[f"conv{j}"] = ConvGN(in_channels if j == 0 else MASK_BRANCH, MASK_BRANCH, 3)
            self.convs_all_levels.append(convs)
        self.conv_pred = ConvGN(MASK_BRANCH, kernel_width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps at 1/4 to 1/32 to (B, D, H/4, W/4)."""
        total = None
        for level, x in enumerate(maps):
            x = with_coordinates(x) if level == 3 else x
            for layer in self.convs_all_levels[level].children():
                x = F.relu(layer(x))
                if level:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        assert total is not None  # noqa: S101  # there are four maps
        return F.relu(self.conv_pred(total))


class Solov2(KernelNetwork):
    """SOLOv2. Mask logits are at 1/4.

    Args:
        backbone: Which one; all four maps are read.
        classes: Class names.
        input_size: (height, width), multiples of 32, with TopFormer of 64.
        num_queries: N, the cells of all grids that are worth a kernel.
        variant: :data:`FULL` or :data:`LITE`.
        origin: Whose weights: they differ in normalisation and in where ResNet-50 halves its maps.
    """

    def __init__(
        self,
        backbone: PeerBackbone,
        classes: tuple[str, ...],
        input_size: tuple[int, int],
        num_queries: int = 200,
        variant: Variant = FULL,
        origin: Origin = "mmdetection",
    ) -> None:
        caffe = origin == "adelaidet"
        super().__init__(
            Needs(
                classes,
                input_size,
                num_queries,
                variant.kernel_width,
                mask_stride=4,
                size_multiple=size_multiple(backbone),
                std=(1.0, 1.0, 1.0) if caffe else Needs.std,
                channel_order="bgr" if caffe else "rgb",
                scores="sigmoid",
                maskness=True,
                suppression="matrix",
            )
        )
        self.origin = origin
        self.backbone = build_peer_backbone(backbone, stride_first=caffe)
        self.fpn = Fpn(self.backbone.channels, PYRAMID, top="pool")
        self.ins_head = InstanceHead(variant, len(classes))
        self.mask_branch = MaskHead(variant.kernel_width)

    def own_name(self, name: str) -> str | None:
        """AdelaiDet's or mmdetection's names."""
        for pattern, replacement in _MMDETECTION if self.origin == "mmdetection" else _ADELAIDET:
            name = pattern.sub(replacement, name)
        return detectron2(pyramid(name, 2))

    def features(self, image: Tensor) -> Features:
        """Mask features (B, D, H/4, W/4), and the pyramid."""
        maps = self.fpn(self.backbone(self.normalise(image)))
        return Features(self.mask_branch(maps[:4]), maps)

    def reuse_features(self, image: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """The mask features alone."""
        maps = self.fpn(self.backbone(self.normalise(image)))
        mask_features: Tensor = self.mask_branch(maps[:4])
        return mask_features

    def decode(self, features: Features) -> Decoded:
        """The N best cells."""
        logits, kernels = self.cells(features)
        picked = best_cells(logits.amax(-1), self.needs.num_queries, logits, kernels)
        return Decoded(picked[0], None, picked[1])

    def cells(self, features: Features) -> tuple[Tensor, Tensor]:
        """All M cells: logits (B, M, C), those of no peak ruled out, and kernels (B, M, D)."""
        p2, p3, p4, p5, p6 = features.memory
        p2 = F.interpolate(p2, scale_factor=0.5, mode="bilinear", align_corners=False)
        p6 = F.interpolate(p6, static_shape(p5)[-2:], mode="bilinear", align_corners=False)
        logits, kernels = self.ins_head([p2, p3, p4, p5, p6])
        return logits, kernels


def _in_tower(tower: str, index: int) -> str:
    """A tower of AdelaiDet's is convolution, normalisation, ReLU, over and over."""
    place, kind = divmod(index, 3)
    return f"{tower}.{place}." + ("" if kind == 0 else "norm.")
