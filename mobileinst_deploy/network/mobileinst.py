"""MobileInst: backbone, mask decoder and instance decoder put together (paper, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobileinst_deploy.core.config import SIZE_MULTIPLE, ModelConfig
from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network.instance_decoder import InstanceDecoder
from mobileinst_deploy.network.kernel_network import Decoded, Features, KernelNetwork
from mobileinst_deploy.network.layers import ConvBN
from mobileinst_deploy.network.mask_decoder import build_mask_decoder
from mobileinst_deploy.network.mobilenetv2 import MobileNetV2
from mobileinst_deploy.network.pyramid import Backbone, Pyramid
from mobileinst_deploy.network.resnet import ResNet
from mobileinst_deploy.network.seaformer import SeaFormer
from mobileinst_deploy.network.topformer import TopFormer


class MobileInst(KernelNetwork):
    """The network. Works at every picture size that is a multiple of 64.

    Args:
        config: What to build; ``input_size`` is only the size it is exported at.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(needs_of(config))
        self.config = config
        self.backbone = build_backbone(config)
        channels = self.backbone.channels
        self.mask_decoder = build_mask_decoder(config, channels)
        self.instance_decoder = InstanceDecoder(config, channels[3])
        self.context_projection = (
            ConvBN(channels[3], config.width) if self.instance_decoder.needs_x6 else None
        )

    @property
    def description(self) -> ModelConfig:
        """Its configuration, which says more than its needs."""
        return self.config

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

    def reuse_features(self, image: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """A reuse frame's mask features (B, D, H/8, W/8); arguments as for :meth:`mask_head`."""
        pyramid = self._pyramid(image, self.mask_decoder.reuse_depth)
        mask_features: Tensor = self.mask_decoder(pyramid, context).features
        return mask_features

    def _pyramid(self, image: Tensor, depth: int) -> Pyramid:
        pyramid: Pyramid = self.backbone(self.normalise(image), depth)
        return pyramid


def needs_of(config: ModelConfig) -> Needs:
    """MobileInst's side of the contract."""
    return Needs(
        classes=config.classes,
        input_size=config.input_size,
        num_queries=config.num_queries,
        width=config.width,
        size_multiple=SIZE_MULTIPLE,
        mean=config.mean,
        std=config.std,
    )


def build_backbone(config: ModelConfig) -> Backbone:
    """The backbone a configuration asks for, with torch's own initial weights."""
    if config.backbone.startswith("seaformer-"):
        return SeaFormer(config.backbone)
    if config.backbone.startswith("resnet-"):
        return ResNet(int(config.backbone.removeprefix("resnet-")))
    if config.backbone == "mobilenetv2":
        return MobileNetV2(config.padding)
    return TopFormer(config.backbone)
