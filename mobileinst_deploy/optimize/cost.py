"""What ONNX Runtime executes on one ARM core, in instructions, as a function of shapes.

Passes that can write a computation in several ways ask here which is cheapest. The constants were
fitted to counts of executed instructions, operator by operator, under ``bench --count`` (ONNX
Runtime 1.32, ``cortex-a76``): float32 kernels of ARM have no other source of cost that differs from
run to run. ``tests/unit/test_optimize_cost.py`` holds predictions to counts; a runtime with other
kernels needs other constants, and loses speed, never correctness.
"""

from __future__ import annotations

import math

#: Instructions per element of operators that touch each element once.
UNARY = 1.6
BINARY = 1.9
BINARY_PER_CHANNEL = 2.5
CONCAT = 0.75
TRANSPOSE = 1.4
#: A convolution's bias, added after its product.
BIAS = 1.3
#: ReLU (or Clip) that the runtime fuses into the convolution before it.
FUSED_ACTIVATION = 0.3
#: Addition that the runtime fuses into the convolution before it.
FUSED_ADDITION = 1.3
#: Bilinear resize per output element, by layout of its input.
RESIZE_CHANNELS_FIRST = 26.5
RESIZE_CHANNELS_LAST = 3.5
#: Non-overlapping pooling per input element.
POOL_CHANNELS_FIRST = 6.0
POOL_CHANNELS_LAST = 1.9
#: Cutting a map into phases, and putting them together by a transposed convolution, per element.
SPACE_TO_DEPTH = 6.0
DEPTH_TO_SPACE = 4.0
#: Starting a node: shape checks, allocation, dispatch.
NODE = 3000.0

_PANEL = 16  # columns of B that the kernel holds in registers
_BLOCK_K = 256  # depth after which it writes back and reloads its sums


def gemm(rows: int, depth: int, columns: int, *, packed: bool = False) -> float:
    """A (rows, depth) times (depth, columns) product.

    The kernel multiplies four rows with a panel of sixteen columns; two or one rows left over cost
    more per product.

    Args:
        rows: Of the left matrix.
        depth: Of the sum.
        columns: Of the right matrix.
        packed: Whether the right matrix is constant and two-dimensional, which the runtime arranges
            in panels when it loads the graph.
    """
    panels = math.ceil(columns / _PANEL)
    fours, left = divmod(rows, 4)
    twos, ones = divmod(left, 2)
    per_depth = 20.0 * fours + 12.0 * twos + 7.0 * ones
    per_block = (50.0 * fours + 38.0 * twos + 30.0 * ones) * math.ceil(depth / _BLOCK_K)
    packing = 0.0 if packed else 6.0 * depth
    return panels * (per_depth * depth + per_block + packing)


def gather(chunks: float, length: float) -> float:
    """Copying ``chunks`` runs of ``length`` consecutive floats."""
    return chunks * (72.0 + 0.66 * length)


def im2col(elements: float, width: int, stride: int, *, grouped: bool) -> float:
    """Spreading a picture out for a convolution as a matrix product.

    Args:
        elements: Of the spread-out matrix: depth times output positions.
        width: Of the output; short rows cost more.
        stride: Of the convolution; only stride 1 copies several elements at a time.
        grouped: Whether it is done group by group, which walks memory in another order.
    """
    if stride != 1:
        return elements * (6.9 + 27.0 / width)
    return elements * (1.55 + 50.0 / width if grouped else 2.0 + 20.0 / width)


def convolution(
    groups: int,
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    size: tuple[int, int],
    stride: int,
    pads: tuple[int, ...] = (),
) -> float:
    """A convolution as the runtime computes it.

    Args:
        groups: Number of groups.
        in_channels: Per group.
        out_channels: Per group.
        kernel: (height, width).
        size: (height, width) of the output.
        stride: On both axes.
        pads: Beginnings and ends; empty for none.
    """
    positions = size[0] * size[1]
    if is_fast_depthwise(in_channels, out_channels, kernel, stride, pads):
        return groups * (positions * (10.4 + 245.0 / size[1]))
    depth = in_channels * kernel[0] * kernel[1]
    product = gemm(out_channels, depth, positions)
    if kernel == (1, 1) and stride == 1:
        return groups * (product + BIAS * out_channels * positions)
    spread = im2col(depth * positions, size[1], stride, grouped=groups > 1)
    biased = BIAS * out_channels * positions
    return groups * (product - gemm(0, depth, positions) + spread + biased)


def is_fast_depthwise(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: int,
    pads: tuple[int, ...],
) -> bool:
    """Whether the runtime has a kernel of its own for this convolution (since 1.24)."""
    shape = (in_channels, out_channels, kernel, stride)
    return shape == (1, 1, (3, 3), 1) and all(pad <= 1 for pad in pads)


def convolution_int8(macs: float, in_elements: float, out_elements: float) -> float:
    """A dense 8-bit convolution of channels-last maps: sixteen products an instruction.

    Args:
        macs: Its multiply-accumulates.
        in_elements: Of its input.
        out_elements: Of its output.
    """
    return 1.44 * macs / 16 + 1.0 * in_elements + 3.0 * out_elements
