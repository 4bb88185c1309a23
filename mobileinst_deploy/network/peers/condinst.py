"""CondInst (arXiv 2003.05664): every cell proposes the weights of three small layers of its own.

A mask is what these layers make of eight mask features and of where a pixel lies relative to the
cell. The first layer is linear in the place, so that the cell's own place goes into its bias and
all instances read the same ten maps. A kernel is the 169 weights, the cell's place and its scale.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
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
from mobileinst_deploy.network.peers.dense import best_cells
from mobileinst_deploy.network.peers.fpn import Fpn
from mobileinst_deploy.network.peers.layouts import detectron2, pyramid

PYRAMID = 256
BRANCH = 128
CONVS = 4
STRIDES = (8, 16, 32, 64, 128)
#: Pixels that a level's instances are about as large as; places are told in this unit.
SCALES = (64, 128, 256, 512, 1024)
INNER = 8
INPUTS = INNER + 2
#: Weights of the three layers, then their biases.
SPLIT = (INNER * INPUTS, INNER * INNER, INNER, INNER, INNER, 1)
WEIGHTS = sum(SPLIT)

_TOPS = ("p6", "p7")
_LEFT = ("mask_head.", "mask_branch.seg_head.", "mask_branch.logits.")


class GroupConv(nn.Sequential):
    """A 3x3 convolution with bias, group normalisation and ReLU."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(PYRAMID, PYRAMID, 3, padding=1), nn.GroupNorm(32, PYRAMID), nn.ReLU()
        )


class Scale(nn.Module):
    """A learned factor of one level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x * self.scale


class CellHead(nn.Module):
    """FCOS's head on every level, and the controller that makes the weights."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.cls_tower = nn.Sequential(*(m for _ in range(CONVS) for m in GroupConv()))
        self.bbox_tower = nn.Sequential(*(m for _ in range(CONVS) for m in GroupConv()))
        self.cls_logits = nn.Conv2d(PYRAMID, num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(PYRAMID, 4, 3, padding=1)
        self.ctrness = nn.Conv2d(PYRAMID, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        self.controller = nn.Conv2d(PYRAMID, WEIGHTS, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Five maps to logits (B, M, C), centreness (B, M, 1) and weights (B, M, 169)."""
        logits, centres, weights = [], [], []
        for x in maps:
            boxed = self.bbox_tower(x)
            logits.append(tokens(self.cls_logits(self.cls_tower(x))))
            centres.append(tokens(self.ctrness(boxed)))
            weights.append(tokens(self.controller(boxed)))
        return torch.cat(logits, 1), torch.cat(centres, 1), torch.cat(weights, 1)

    def boxes(self, maps: list[Tensor]) -> Tensor:
        """Five maps to distances (B, M, 4) in px: left, top, right, bottom of each cell's place.

        The authors suppress duplicates by them. Here masks decide (ADR 12), so that no graph holds
        this layer.
        """
        levels = zip(maps, self.scales, STRIDES, strict=True)
        return torch.cat(
            [tokens(F.relu(s(self.bbox_pred(self.bbox_tower(x))))) * p for x, s, p in levels], 1
        )


def _conv_bn(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, BRANCH, 3, padding=1, bias=False), nn.BatchNorm2d(BRANCH), nn.ReLU()
    )


class MaskBranch(nn.Module):
    """Three maps to eight mask features at 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.refine = nn.ModuleList(_conv_bn(PYRAMID) for _ in range(3))
        self.tower = nn.Sequential(
            *(_conv_bn(BRANCH) for _ in range(CONVS)), nn.Conv2d(BRANCH, INNER, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps at 1/8, 1/16, 1/32 to (B, 8, H/8, W/8)."""
        p3, p4, p5 = (f(x) for f, x in zip(self.refine, maps, strict=True))
        out: Tensor = self.tower(p3 + aligned_resize(p4, 2) + aligned_resize(p5, 4))
        return out


def aligned_resize(x: Tensor, factor: int) -> Tensor:
    """``factor`` times as large, bilinearly, so that a position keeps its pixel's middle.

    Position i of the map stands at ``factor * i + factor / 2``; before the first one and after the
    last one the map goes on as it is there. Written out, since ONNX's resize would fix the number
    of instances.

    Args:
        x: (B, n, h, w).
        factor: Even.

    Returns:
        (B, n, factor * h, factor * w).
    """
    b, _, h, w = static_shape(x)
    rows = _between_neighbours(x, F.pad(x, (0, 0, 1, 1), mode="replicate"), 2, factor)
    x = torch.stack(rows, 3).reshape(b, -1, factor * h, w)
    columns = _between_neighbours(x, F.pad(x, (1, 1, 0, 0), mode="replicate"), 3, factor)
    return torch.stack(columns, 4).reshape(b, -1, factor * h, factor * w)


def _between_neighbours(x: Tensor, padded: Tensor, axis: int, factor: int) -> list[Tensor]:
    """What lies at each of ``factor`` places around every position along an axis."""
    length = static_shape(x)[axis]
    before = padded.narrow(axis, 0, length)
    after = padded.narrow(axis, 2, length)
    places = [(j - factor // 2) / factor for j in range(factor)]
    return [x + ((before if p < 0 else after) - x) * abs(p) if p else x for p in places]


class CondInst(KernelNetwork):
    """CondInst. Mask features are at 1/8, mask logits at 1/4.

    Args:
        backbone: Which one; its maps at 1/8, 1/16 and 1/32 are read.
        classes: Class names.
        input_size: (height, width), multiples of 32, with TopFormer of 64.
        num_queries: N, the cells that are worth a kernel.
        more: Numbers at the end of each kernel that the masks do not read.
    """

    def __init__(
        self,
        backbone: PeerBackbone,
        classes: tuple[str, ...],
        input_size: tuple[int, int],
        num_queries: int = 200,
        more: int = 0,
    ) -> None:
        super().__init__(
            Needs(
                classes,
                input_size,
                num_queries,
                WEIGHTS + 3 + more,
                mask_stride=4,
                size_multiple=size_multiple(backbone),
                mean=(123.675, 116.28, 103.53),
                std=(1.0, 1.0, 1.0),
                channel_order="bgr",
                suppression="box",
            )
        )
        self.backbone = build_peer_backbone(backbone, stride_first=True)
        self.fpn = Fpn(self.backbone.channels[1:], PYRAMID, top="convolutions")
        self.mask_branch = MaskBranch()
        self.cell_head = CellHead(len(classes))

    def own_name(self, name: str) -> str | None:
        """AdelaiDet's names."""
        if name.startswith(_LEFT):
            return None
        name = re.sub(r"^proposal_generator\.fcos_head\.", "cell_head.", name)
        name = re.sub(r"^controller\.", "cell_head.controller.", name)
        for i, top in enumerate(_TOPS):
            name = name.replace(f"backbone.top_block.{top}.", f"fpn.top.{i}.")
        return detectron2(pyramid(name, 3))

    def features(self, image: Tensor) -> Features:
        """Mask features (B, 8, H/8, W/8), and the pyramid."""
        maps = self._pyramid(image)
        return Features(self.mask_branch(maps[:3]), maps)

    def reuse_features(self, image: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """The mask features alone."""
        mask_features: Tensor = self.mask_branch(self._pyramid(image)[:3])
        return mask_features

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        _, c3, c4, c5 = self.backbone(self.normalise(image))
        maps: list[Tensor] = self.fpn((c3, c4, c5))
        return maps

    def decode(self, features: Features) -> Decoded:
        """The N best cells."""
        logits, centres, kernels = self.cells(features)
        worth = logits.amax(-1).sigmoid() * centres[..., 0].sigmoid()
        logits, centres, kernels = best_cells(
            worth, self.needs.num_queries, logits, centres, kernels
        )
        return Decoded(logits, centres, kernels)

    def cells(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """All M cells: logits (B, M, C), centreness (B, M, 1) and kernels (B, M, 172)."""
        logits, centres, weights = self.cell_head(features.memory)
        sizes = [(h, w) for _, _, h, w in map(static_shape, features.memory)]
        cells = frozen_tensor(_cells(sizes), weights)
        b, m, _ = static_shape(weights)
        return logits, centres, torch.cat([weights, cells.expand(b, m, 3)], -1)

    def masks(self, kernels: Tensor, mask_features: Tensor) -> Tensor:
        """The three layers of every instance; (B, n, 172 or more) to (B, n, H/4, W/4)."""
        b, _, h, w = static_shape(mask_features)
        w0, w1, w2, b0, b1, b2 = torch.split(kernels[..., :WEIGHTS], list(SPLIT), -1)
        x, y, unit = (kernels[..., WEIGHTS + i : WEIGHTS + i + 1] for i in range(3))
        # The place relative to the cell, in the cell's unit: x - unit * X for a pixel at X.
        by_x, by_y, by_map = torch.split(w0.reshape(b, -1, INNER, INPUTS), [1, 1, INNER], dim=-1)
        bias = b0 + by_x.squeeze(-1) * x + by_y.squeeze(-1) * y
        size = unit.unsqueeze(-1)
        first = torch.cat([by_x * -size, by_y * -size, by_map], -1).reshape(b, -1, INPUTS)
        shared = torch.cat(
            [frozen_tensor(_pixels(h, w), kernels).expand(b, 2, h * w),
             mask_features.reshape(b, INNER, h * w)], 1
        )  # fmt: skip
        y0 = torch.matmul(first, shared).reshape(b, -1, INNER, h * w)
        y0 = F.relu(y0 + bias.unsqueeze(-1))
        y1 = F.relu(torch.matmul(w1.reshape(b, -1, INNER, INNER), y0) + b1.unsqueeze(-1))
        y2 = torch.matmul(w2.unsqueeze(2), y1) + b2.unsqueeze(-1)
        return aligned_resize(y2.reshape(b, -1, h, w), 2)


def _pixels(height: int, width: int) -> np.ndarray:
    """(1, 2, height * width) float32: x and y in pixels of each position's middle."""
    stride = STRIDES[0]
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([x.ravel(), y.ravel()])[None].astype(np.float32) * stride + stride // 2


def _cells(sizes: list[tuple[int, int]]) -> np.ndarray:
    """(1, M, 3) float32: each cell's x and y in its unit, and 1 / the unit in pixels."""
    levels = []
    for (h, w), stride, scale in zip(sizes, STRIDES, SCALES, strict=True):
        y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
        place = np.stack([x.ravel(), y.ravel()], 1) * stride + stride // 2
        unit = np.full((len(place), 1), 1 / scale)
        levels.append(np.concatenate([place / scale, unit], 1))
    return np.concatenate(levels)[None].astype(np.float32)
