"""MobileNetV2 1.0 (arXiv 1801.04381) in the torchvision key layout, up to its 320-channel map.

The last 1x1 convolution (``features.18``, 1280 channels) and the classifier are not built. timm's
names of the same tensors are understood.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.config import Padding
from mobileinst_deploy.network.pyramid import Backbone, Pyramid

# Expansion, channels, repeats, stride of the first repeat (MobileNetV2 paper, table 2).
SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
#: The layers that give X3, X4 and X5.
TAPS = (6, 13, 17)

# timm counts blocks within each row of the table.
_TIMM = re.compile(
    r"(?P<around>(?:[a-z_]+\.)*?)"
    r"(?:(?P<end>conv_stem|bn1|conv_head|bn2)|blocks\.(?P<row>[0-6])\.(?P<block>\d)\.(?P<part>\w+))"
    r"\.(?P<what>\w+)"
)
_TIMM_ENDS = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "conv_head": "features.18.0",
    "bn2": "features.18.1",
}
_TIMM_PARTS = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "conv_pwl": "2",
    "bn3": "3",
}
#: The first block has no expansion.
_TIMM_FIRST_PARTS = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}


class TensorflowConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 as TensorFlow's SAME pads it: right and bottom alone.

    Simplifying a graph takes the padding into the convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, h, w), h and w even, to (B, Cout, h/2, w/2)."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def _conv_bn_relu6(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "even",
) -> nn.Sequential:
    uneven = stride == 2 and padding == "tensorflow"
    return nn.Sequential(
        (TensorflowConv2d if uneven else nn.Conv2d)(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=0 if uneven else kernel_size // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise 3x3, linear pointwise projection, under the name ``conv``."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expand: int, padding: Padding
    ) -> None:
        super().__init__()
        hidden = in_channels * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(_conv_bn_relu6(in_channels, hidden, 1))
        layers += [
            _conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden, padding=padding),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, h, w) to (B, Cout, h/stride, w/stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(Backbone):
    """MobileNetV2 1.0: X3, X4, X5 are ``features`` 6, 13 and 17; X6 is X5 max-pooled by two.

    Args:
        padding: Of the stride-2 convolutions, see ``ModelConfig``.
    """

    def __init__(self, padding: Padding = "even") -> None:
        super().__init__()
        self.channels = (32, 96, 320, 320)
        layers: list[nn.Module] = [_conv_bn_relu6(3, STEM_CHANNELS, 3, 2, padding=padding)]
        channels = STEM_CHANNELS
        for expand, out_channels, repeats, stride in SETTINGS:
            for i in range(repeats):
                step = stride if i == 0 else 1
                layers.append(InvertedResidual(channels, out_channels, step, expand, padding))
                channels = out_channels
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor, depth: int = 6) -> Pyramid:
        """See :meth:`Backbone.forward`."""
        maps: list[Tensor] = []
        x = image
        for i in range(TAPS[min(depth, 5) - 3] + 1):
            x = self.features[i](x)
            if i in TAPS:
                maps.append(x)
        if depth > 5:
            maps.append(F.max_pool2d(maps[-1], 2))
        return Pyramid(*maps)

    @staticmethod
    def own_name(published: str) -> str:
        """See :meth:`Backbone.own_name`: timm's names become torchvision's.

        Example:
            >>> MobileNetV2.own_name("blocks.1.0.conv_pwl.weight")
            'features.2.conv.2.weight'
        """
        found = _TIMM.fullmatch(published)
        if found is None:
            return published
        if found["end"]:
            place = _TIMM_ENDS[found["end"]]
        else:
            row = int(found["row"])
            number = 1 + sum(repeats for _, _, repeats, _ in SETTINGS[:row]) + int(found["block"])
            part = (_TIMM_PARTS if row else _TIMM_FIRST_PARTS).get(found["part"])
            if part is None:
                return published
            place = f"features.{number}.conv.{part}"
        return f"{found['around']}{place}.{found['what']}"
