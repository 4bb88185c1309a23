"""MobileInst: backbone, mask decoder and instance decoder put together (paper, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.network.instance_decoder import Decoded, InstanceDecoder
from mobileinst_deploy.network.layers import ConvBN, static_shape
from mobileinst_deploy.network.mask_decoder import build_mask_decoder
from mobileinst_deploy.network.mobilenetv2 import MobileNetV2
from mobileinst_deploy.network.pyramid import Backbone, Pyramid
from mobileinst_deploy.network.seaformer import SeaFormer
from mobileinst_deploy.network.topformer import TopFormer


class FrameOutput(NamedTuple):
    """What a keyframe gives; the frame graph's outputs, in order.

    Attributes:
        class_logits: (B, N, C).
        objectness_logits: (B, N, 1).
        kernels: (B, N, D).
        mask_logits: (B, N, H/8, W/8).
        context: What reuse frames are given beside the kernels; empty without context reuse.
    """

    class_logits: Tensor
    objectness_logits: Tensor
    kernels: Tensor
    mask_logits: Tensor
    context: tuple[Tensor, ...]


class Features(NamedTuple):
    """What is known of a picture before its instances are.

    Attributes:
        mask_features: X_mask, (B, D, H/8, W/8).
        memory: The projected X6, (B, D, H/64, W/64), which the instance decoder's global stage
            reads, or None where there is none.
        context: As in :class:`FrameOutput`.
    """

    mask_features: Tensor
    memory: Tensor | None
    context: tuple[Tensor, ...] = ()


class MobileInst(nn.Module):
    """The network. Works at every picture size that is a multiple of 64.

    Args:
        config: What to build; ``input_size`` is only the size it is exported at.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config)
        channels = self.backbone.channels
        self.mask_decoder = build_mask_decoder(config, channels)
        self.instance_decoder = InstanceDecoder(config, channels[3])
        self.context_projection = (
            ConvBN(channels[3], config.width) if self.instance_decoder.needs_x6 else None
        )
        # Constants of the configuration, not weights: they stay out of the state dict.
        mean = torch.tensor(config.mean).view(1, 3, 1, 1)
        scale = 1 / torch.tensor(config.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    mean: Tensor
    scale: Tensor

    def forward(self, image: Tensor) -> FrameOutput:
        """Segment a keyframe.

        Args:
            image: (B, 3, H, W) float32, RGB, 0 to 255; normalised inside.
        """
        features = self.features(image)
        decoded = self.decode(features)
        return FrameOutput(
            decoded.class_logits,
            decoded.objectness_logits,
            decoded.kernels,
            apply_kernels(decoded.kernels, features.mask_features),
            features.context,
        )

    def features(self, image: Tensor) -> Features:
        """What a picture (B, 3, H, W) is to the instance decoder and to later frames."""
        depth = 6 if self.instance_decoder.needs_x6 else self.mask_decoder.depth
        pyramid = self._pyramid(image, depth)
        memory = None
        if self.context_projection is not None:
            memory = self.context_projection(pyramid.x6)
        mask_features, context = self.mask_decoder(pyramid)
        return Features(mask_features, memory, context)

    def decode(
        self, features: Features, queries: Tensor | None = None, first_stage: int = 0
    ) -> Decoded:
        """Features to instances; see :meth:`InstanceDecoder.forward` for the arguments."""
        decoded: Decoded = self.instance_decoder(
            features.mask_features, features.memory, queries, first_stage
        )
        return decoded

    def mask_head(self, image: Tensor, kernels: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """Segment a reuse frame by a keyframe's kernels (paper section 3.4).

        Args:
            image: (B, 3, H, W), as for :meth:`forward`.
            kernels: (B, n, D), any n.
            context: The keyframe's, where the configuration reuses it.

        Returns:
            Mask logits (B, n, H/8, W/8).
        """
        return apply_kernels(kernels, self.reuse_features(image, context))

    def reuse_features(self, image: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """A reuse frame's mask features (B, D, H/8, W/8); arguments as for :meth:`mask_head`."""
        pyramid = self._pyramid(image, self.mask_decoder.reuse_depth)
        mask_features: Tensor = self.mask_decoder(pyramid, context).features
        return mask_features

    def _pyramid(self, image: Tensor, depth: int) -> Pyramid:
        pyramid: Pyramid = self.backbone((image - self.mean) * self.scale, depth)
        return pyramid


def apply_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """Mask logits: kernels (B, n, D) times mask features (B, D, h, w) to (B, n, h, w)."""
    b, d, h, w = static_shape(mask_features)
    return torch.matmul(kernels, mask_features.reshape(b, d, h * w)).reshape(b, -1, h, w)


def build_backbone(config: ModelConfig) -> Backbone:
    """The backbone a configuration asks for, with torch's own initial weights."""
    if config.backbone == "seaformer-base":
        return SeaFormer()
    if config.backbone == "mobilenetv2":
        return MobileNetV2(config.padding)
    return TopFormer(config.backbone)
