"""The peers' backbones: four maps at 1/4, 1/8, 1/16 and 1/32 of the picture.

They are the project's own, seen through the four maps that the peers' pyramids ask for.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.network.layers import resize_like
from mobileinst_deploy.network.mobilenetv2 import MobileNetV2
from mobileinst_deploy.network.resnet import ResNetBody
from mobileinst_deploy.network.topformer import TopFormer

PeerBackbone = Literal["resnet-50", "resnet-18", "mobilenetv2", "topformer-base"]
Maps = tuple[Tensor, Tensor, Tensor, Tensor]

_SIM_CHANNELS = 256


class FourMaps(nn.Module):
    """A backbone's interface.

    Attributes:
        channels: Of the maps at 1/4, 1/8, 1/16 and 1/32.
    """

    channels: tuple[int, int, int, int]

    @abstractmethod
    def forward(self, image: Tensor) -> Maps:
        """A normalised picture (B, 3, H, W), sides multiples of 32, to four maps."""


class ResNetMaps(ResNetBody, FourMaps):
    """ResNet's C2 to C5.

    Args:
        depth: 18 or 50.
        stride_first: See :class:`~mobileinst_deploy.network.resnet.ResNetBody`.
    """

    def __init__(self, depth: int, stride_first: bool = False) -> None:
        super().__init__(depth, stride_first)
        self.channels = self.widths

    def forward(self, image: Tensor) -> Maps:
        """See :meth:`FourMaps.forward`."""
        c2, c3, c4, c5 = self.maps(image)
        return c2, c3, c4, c5


class MobileNetMaps(FourMaps):
    """MobileNetV2's maps after ``features`` 3, 6, 13 and 17."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (24, 32, 96, 320)
        self.features = MobileNetV2().features

    def forward(self, image: Tensor) -> Maps:
        """See :meth:`FourMaps.forward`."""
        maps = []
        x = image
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in (3, 6, 13, 17):
                maps.append(x)
        c2, c3, c4, c5 = maps
        return c2, c3, c4, c5


class Embedding(nn.Sequential):
    """A 1x1 convolution and BN, called ``conv`` and ``bn`` as in TopFormer's published files."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)


class Injection(nn.Module):
    """TopFormer's semantic injection (arXiv 2204.05525, section 3.3): global tokens gate a map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.local_embedding = Embedding(in_channels, out_channels)
        self.global_embedding = Embedding(in_channels, out_channels)
        self.global_act = Embedding(in_channels, out_channels)

    def forward(self, local: Tensor, tokens: Tensor) -> Tensor:
        """Map (B, C, h, w) and its tokens (B, C, h', w') to (B, Cout, h, w)."""
        x = self.local_embedding(local)
        gate = resize_like(F.hardsigmoid(self.global_act(tokens)), x)
        out: Tensor = x * gate + resize_like(self.global_embedding(tokens), x)
        return out


class TopFormerMaps(FourMaps):
    """TopFormer-Base as a dense predictor's backbone.

    The pyramid's map at 1/4 as it is, and those at 1/8, 1/16 and 1/32 after the semantic injection,
    256 channels each: how TopFormer's authors feed a pyramid. Which maps the paper's peers read is
    not published.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels = (32, _SIM_CHANNELS, _SIM_CHANNELS, _SIM_CHANNELS)
        body = TopFormer("topformer-base")
        self.tpm, self.trans = body.tpm, body.trans
        self.splits = body.channels[:3]
        # The first map is not injected into; the published files number the others from 1.
        self.SIM = nn.ModuleDict(
            {str(i): Injection(c, _SIM_CHANNELS) for i, c in enumerate(body.channels[:3], start=1)}
        )

    def forward(self, image: Tensor) -> Maps:
        """See :meth:`FourMaps.forward`; here the sides are multiples of 64."""
        c2, c3, c4, c5, _ = self.with_tokens(image)
        return c2, c3, c4, c5

    def with_tokens(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The four maps, and the transformer's output (B, 384, H/64, W/64)."""
        maps = self.tpm(image)
        pooled = [F.avg_pool2d(x, 16 >> i) for i, x in enumerate(maps)]
        tokens = self.trans(torch.cat(pooled, dim=1))
        # The first map's tokens are cut off rather than split off and left unread: ncnn would take
        # what nobody reads for an output.
        parts = tokens[:, self.channels[0] :].split(self.splits, dim=1)
        c3, c4, c5 = (self.SIM[str(i)](maps[i], parts[i - 1]) for i in (1, 2, 3))
        return maps[0], c3, c4, c5, tokens


def size_multiple(name: PeerBackbone) -> int:
    """What both sides of a picture are multiples of: a backbone's deepest map is at 1/that."""
    return 64 if name == "topformer-base" else 32


def build_peer_backbone(name: PeerBackbone, stride_first: bool = False) -> FourMaps:
    """A backbone by its name.

    Args:
        name: Which one.
        stride_first: See :class:`~mobileinst_deploy.network.resnet.ResNetBody`.
    """
    if name == "mobilenetv2":
        return MobileNetMaps()
    if name == "topformer-base":
        return TopFormerMaps()
    return ResNetMaps(int(name.removeprefix("resnet-")), stride_first)
