"""ResNet-18 and -50 (arXiv 1512.03385) in torchvision's key layout, without their classifier."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.network.pyramid import Backbone, Pyramid

#: Blocks in each of the four stages (the paper's table 1), and whether they are bottlenecks.
RESNETS = {18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True)}


class Basic(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, stride_first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, h, w) to (B, width, h/stride, w/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (ResNet-50)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, stride_first: bool) -> None:
        super().__init__()
        out_channels = width * self.expansion
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, h, w) to (B, 4*width, h/stride, w/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class ResNetBody(nn.Module):
    """The four stages.

    Args:
        depth: 18 or 50.
        stride_first: Whether a bottleneck that halves the map does so in its first 1x1, as in the
            original weights (MSRA's), and not in its 3x3, as in torchvision's.

    Attributes:
        widths: Channels of the maps at 1/4, 1/8, 1/16 and 1/32.
    """

    widths: tuple[int, int, int, int]

    def __init__(self, depth: int, stride_first: bool = False) -> None:
        super().__init__()
        blocks, deep = RESNETS[depth]
        block = Bottleneck if deep else Basic
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels, widths = 64, (64, 128, 256, 512)
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            layers = nn.Sequential()
            for i in range(count):
                stride = 2 if i == 0 and stage > 1 else 1
                layers.append(block(channels, width, stride, stride_first))
                channels = width * block.expansion
            self.add_module(f"layer{stage}", layers)
        c2, c3, c4, c5 = (width * block.expansion for width in widths)
        self.widths = (c2, c3, c4, c5)

    def maps(self, image: Tensor, count: int = 4) -> list[Tensor]:
        """The first ``count`` of the maps at 1/4, 1/8, 1/16 and 1/32 of a normalised picture."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, padding=1)
        found = []
        for stage in range(1, count + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            found.append(x)
        return found


class ResNet(ResNetBody, Backbone):
    """ResNet as MobileInst's backbone. X6, which ResNet does not have, is X5 averaged 2x2.

    Args:
        depth: 18 or 50.
    """

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        _, c3, c4, c5 = self.widths
        self.channels = (c3, c4, c5, c5)

    def forward(self, image: Tensor, depth: int = 6) -> Pyramid:
        """See :meth:`Backbone.forward`."""
        _, *maps = self.maps(image, min(depth, 5) - 1)
        if depth < 6:
            return Pyramid(*maps)
        x3, x4, x5 = maps
        return Pyramid(x3, x4, x5, F.avg_pool2d(x5, 2))
