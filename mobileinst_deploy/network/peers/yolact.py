"""YOLACT (arXiv 1904.02689): every anchor box proposes coefficients of 32 shared prototypes.

A mask is a linear combination of the prototypes, cropped to its box. So a kernel is 32 coefficients
and the four sides of the box. On a reuse frame the box stays where its keyframe saw it. Module
names follow the authors' code.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network.kernel_network import (
    Decoded,
    Features,
    KernelNetwork,
    apply_kernels,
)
from mobileinst_deploy.network.layers import frozen_tensor, resize_like, static_shape
from mobileinst_deploy.network.peers.backbones import (
    PeerBackbone,
    build_peer_backbone,
    size_multiple,
)
from mobileinst_deploy.network.peers.dense import OUT, best_cells

WIDTH = 256
PROTOTYPES = 32
#: Sides of the anchors of each level, in pixels of the trained size, and their ratios.
ANCHOR_SIDES = (24, 48, 96, 192, 384)
RATIOS = (1.0, 0.5, 2.0)
#: How far a box moves and grows for one unit of what is predicted.
SHIFT, GROWTH = 0.1, 0.2
#: How much wider than its box a mask may be, in positions of the prototypes.
MARGIN = 1


class Pyramid(nn.Module):
    """Three maps to five of 256 channels; its layers are numbered from the coarsest map."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.lat_layers = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in reversed(channels))
        self.pred_layers = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in channels)
        self.downsample_layers = nn.ModuleList(
            nn.Conv2d(WIDTH, WIDTH, 3, 2, padding=1) for _ in range(2)
        )

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        """Maps at 1/8, 1/16, 1/32 to those and two coarser ones, finest first."""
        inner: list[Tensor] = []
        for lateral, x in zip(self.lat_layers, reversed(maps), strict=True):
            y = lateral(x)
            inner.append(y + resize_like(inner[-1], y) if inner else y)
        outer = [F.relu(f(x)) for f, x in zip(self.pred_layers, inner, strict=True)][::-1]
        for layer in self.downsample_layers:
            outer.append(layer(outer[-1]))
        return outer


class Doubled(nn.Module):
    """Twice the size, bilinearly."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w)."""
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _conv() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1)


class PredictionHead(nn.Module):
    """One head for all levels: boxes, classes and coefficients of every anchor."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        anchors = len(RATIOS)
        self.upfeature = nn.Sequential(_conv(), nn.ReLU())
        self.bbox_layer = nn.Conv2d(WIDTH, anchors * 4, 3, padding=1)
        self.conf_layer = nn.Conv2d(WIDTH, anchors * (num_classes + 1), 3, padding=1)
        self.mask_layer = nn.Conv2d(WIDTH, anchors * PROTOTYPES, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """All levels to (B, M, 4), (B, M, C + 1), "no object" first, and (B, M, 32)."""
        levels = [self.upfeature(x) for x in maps]
        boxes, classes, coefficients = (
            torch.cat([_each(layer(x), width) for x in levels], 1)
            for layer, width in (
                (self.bbox_layer, 4),
                (self.conf_layer, self.conf_layer.out_channels // len(RATIOS)),
                (self.mask_layer, PROTOTYPES),
            )
        )
        return boxes, classes, coefficients.tanh()


def _each(x: Tensor, width: int) -> Tensor:
    """(B, anchors * width, h, w) to (B, h * w * anchors, width)."""
    b = static_shape(x)[0]
    return x.permute(0, 2, 3, 1).reshape(b, -1, width)


class Yolact(KernelNetwork):
    """YOLACT. Mask logits are at 1/4.

    Its authors resize every picture to 550x550, which no power of two divides; here sides are
    multiples of 32, and 544x544 is nearest. Anchors keep their sizes in pixels.

    Args:
        backbone: Which one; its maps at 1/8, 1/16 and 1/32 are read.
        classes: Class names.
        input_size: (height, width), multiples of 32, with TopFormer of 64.
        num_queries: N, the anchors that are worth a kernel; the authors keep 200.
    """

    def __init__(
        self,
        backbone: PeerBackbone,
        classes: tuple[str, ...],
        input_size: tuple[int, int],
        num_queries: int = 200,
    ) -> None:
        super().__init__(
            Needs(
                classes,
                input_size,
                num_queries,
                PROTOTYPES + 4,
                mask_stride=4,
                size_multiple=size_multiple(backbone),
                mean=(123.68, 116.78, 103.94),
                std=(58.40, 57.12, 57.38),
                scores="softmax",
                suppression="box",
            )
        )
        self.backbone = build_peer_backbone(backbone)
        self.fpn = Pyramid(self.backbone.channels[1:])
        self.proto_net = nn.Sequential(
            *(m for _ in range(3) for m in (_conv(), nn.ReLU())),
            *(Doubled(), nn.ReLU()),
            *(_conv(), nn.ReLU()),
            nn.Conv2d(WIDTH, PROTOTYPES, 1),
        )
        self.prediction_layers = nn.ModuleList([PredictionHead(len(classes))])

    def own_name(self, name: str) -> str | None:
        """The authors' names; their semantic branch is of training, their old files' doubles go."""
        if name.startswith("semantic_seg_conv.") or re.match(r"backbone\.layer\d", name):
            return None
        return re.sub(r"^backbone\.layers\.(\d)", lambda m: f"backbone.layer{int(m[1]) + 1}", name)

    def features(self, image: Tensor) -> Features:
        """Prototypes (B, 32, H/4, W/4), and the pyramid."""
        _, c3, c4, c5 = self.backbone(self.normalise(image))
        maps = self.fpn((c3, c4, c5))
        return Features(F.relu(self.proto_net(maps[0])), maps)

    def decode(self, features: Features) -> Decoded:
        """The N best anchors."""
        logits, kernels = self.anchors(features)
        worth = logits.softmax(-1)[..., :-1].amax(-1)
        logits, kernels = best_cells(worth, self.needs.num_queries, logits, kernels)
        return Decoded(logits, None, kernels)

    def anchors(self, features: Features) -> tuple[Tensor, Tensor]:
        """All M anchors: logits (B, M, C + 1) and kernels (B, M, 36), the box from 0 to 1 last."""
        moved, classes, coefficients = self.prediction_layers[0](features.memory)
        sizes = tuple((h, w) for _, _, h, w in map(static_shape, features.memory))
        stride = self.needs.mask_stride
        h, w = (stride * side for side in static_shape(features.mask_features)[-2:])
        anchors = frozen_tensor(_anchors(sizes, h, w), moved)
        middle = anchors[..., :2] + moved[..., :2] * SHIFT * anchors[..., 2:]
        half = anchors[..., 2:] * (moved[..., 2:] * GROWTH).exp() / 2
        # "No object" comes first in the authors' files and last in the contract.
        logits = torch.cat([classes[..., 1:], classes[..., :1]], -1)
        return logits, torch.cat([coefficients, middle - half, middle + half], -1)

    def masks(self, kernels: Tensor, mask_features: Tensor) -> Tensor:
        """Coefficients times prototypes, inside the box; (B, n, 36) to (B, n, H/4, W/4)."""
        logits = apply_kernels(kernels[..., :PROTOTYPES], mask_features)
        h, w = static_shape(mask_features)[-2:]
        columns = frozen_tensor(np.arange(w, dtype=np.float32), kernels)
        rows = frozen_tensor(np.arange(h, dtype=np.float32), kernels)
        box = kernels[..., PROTOTYPES:]
        across = _between(columns, box[..., 0:1] * w, box[..., 2:3] * w)
        down = _between(rows, box[..., 1:2] * h, box[..., 3:4] * h)
        inside = down.unsqueeze(3) * across.unsqueeze(2)
        return logits * inside + OUT * (1 - inside)


def _between(places: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """1 where a place lies from ``first`` to before ``last``, with a margin, else 0; (B, n, L)."""
    start = (first - MARGIN).clamp(min=0)
    return (places >= start).to(places) * (places < last + MARGIN).to(places)


@lru_cache(maxsize=16)
def _anchors(sizes: tuple[tuple[int, int], ...], height: int, width: int) -> np.ndarray:
    """(1, M, 4) float32: the middle's x and y, width and height of every anchor, from 0 to 1.

    All anchors are as high as they are wide, whatever their ratio: the published weights were
    trained with that slip.
    """
    levels = []
    for (h, w), side in zip(sizes, ANCHOR_SIDES, strict=True):
        y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
        each = []
        for ratio in RATIOS:
            long = np.full_like(x, side * np.sqrt(ratio))
            each.append(np.stack([x, y, long / width, long / height], -1))
        levels.append(np.stack(each, 2).reshape(-1, 4))
    return np.concatenate(levels)[None].astype(np.float32)
