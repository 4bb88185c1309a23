"""Small pieces that every part of the network shares, written to trace into static graphs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBN(nn.Sequential):
    """A convolution without bias, then batch normalisation.

    The two are called ``c`` and ``bn``, as in the published TopFormer and SeaFormer checkpoints.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Side of the square kernel, odd.
        stride: Of the convolution; the padding keeps 1/stride of the size.
        groups: Convolution groups; ``in_channels`` makes it depthwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)


class ConvBNReLU(ConvBN):
    """:class:`ConvBN` and a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.act = nn.ReLU()


class SeparableConvBNReLU(nn.Sequential):
    """A depthwise 3x3 and a pointwise convolution, then BN and ReLU.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = ConvBNReLU(channels, channels)


def static_shape(x: Tensor) -> tuple[int, ...]:
    """A tensor's shape as plain integers, also while a graph is being traced.

    A traced ``x.shape`` would put Shape, Gather and Concat operators into the exported graph, for
    axes that never change there.

    Args:
        x: Any tensor; the axes asked for must be fixed in the exported graph.
    """
    with _quiet_tracer():
        return tuple(int(length) for length in x.shape)


def frozen_tensor(table: np.ndarray, like: Tensor) -> Tensor:
    """A numpy table as a tensor with another's dtype and device; a constant in a traced graph."""
    with _quiet_tracer():
        return torch.from_numpy(table).to(like)


@contextmanager
def _quiet_tracer() -> Iterator[None]:
    """Silence the tracer's warning about values it records as constants; here that is the point."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """Bilinear resize of (B, C, h, w) to the height and width of ``other``, corners not aligned.

    The pyramid's maps are powers of two apart, so the scales are exact. Scales rather than sizes:
    torch exports a resize to a size as a chain of Shape, Slice and Concat.
    """
    (h, w), (height, width) = static_shape(x)[-2:], static_shape(other)[-2:]
    if (h, w) == (height, width):
        return x
    return F.interpolate(
        x, scale_factor=(height / h, width / w), mode="bilinear", align_corners=False
    )
