"""The operators that can work on rows of pixels: when, at what cost, and how.

An operator here is one that gives the same numbers whether the channels of a pixel or the pixels of
a channel lie side by side. Costs are those of :mod:`.cost`, in instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import NodeProto

from mobileinst_deploy.optimize import cost, winograd_conv
from mobileinst_deploy.optimize.graph import Graph, attribute, attributes, is_op
from mobileinst_deploy.optimize.pixels import PixelWriter, Rows, raster

_UNARY = (
    "Relu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "LeakyRelu", "Elu", "Tanh", "Softplus",
    "Abs", "Neg", "Exp", "Sqrt",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min")
_ACTIVATIONS = ("Relu", "Clip", "HardSigmoid", "Sigmoid", "LeakyRelu", "Tanh")


@dataclass(frozen=True)
class Operator:
    """How one node would work on rows.

    Attributes:
        maps: The inputs that are maps (1, C, H, W).
        by_channels: Its cost as it stands.
        by_pixels: Its cost on rows.
        write: Adds the nodes that compute it on rows and returns its output's.
    """

    maps: tuple[str, ...]
    by_channels: float
    by_pixels: float
    write: Callable[[PixelWriter], Rows]


def operator(graph: Graph, node: NodeProto, largest_tile: int) -> Operator | None:
    """What a node would be on rows, or None if it cannot be."""
    if not node.output or _map_shape(graph, node.output[0]) is None:
        return None
    if is_op(node, "Conv"):
        return _convolution(graph, node, largest_tile)
    if is_op(node, *_UNARY):
        return _unary(graph, node)
    if is_op(node, *_BINARY):
        return _binary(graph, node)
    if is_op(node, "Resize"):
        return _resize(graph, node)
    if is_op(node, "MaxPool", "AveragePool"):
        return _pool(graph, node)
    if is_op(node, "Concat"):
        return _concat(graph, node)
    return None


def _map_shape(graph: Graph, tensor: str) -> tuple[int, int, int, int] | None:
    """The shape of a tensor that is one map."""
    shape = graph.shape(tensor)
    if shape is None or len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
        return None
    return shape[0], shape[1], shape[2], shape[3]


def _convolution(graph: Graph, node: NodeProto, largest_tile: int) -> Operator | None:
    source, target = _map_shape(graph, node.input[0]), _map_shape(graph, node.output[0])
    weight = graph.value(node.input[1])
    has_bias = len(node.input) > 2 and bool(node.input[2])
    bias = graph.value(node.input[2]) if has_bias else None
    plain = (
        source is not None
        and target is not None
        and weight is not None
        and weight.ndim == 4
        and weight.dtype == np.float32
        and (bias is not None) == has_bias
        and attribute(node, "group", 1) == 1
        and set(attribute(node, "strides", [1])) == {1}
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )
    if not plain or source is None or target is None or weight is None:
        return None
    outputs, channels = weight.shape[:2]
    offset = np.zeros(outputs, np.float32) if bias is None else bias
    pads = tuple(attribute(node, "pads", [0, 0, 0, 0]))
    if weight.shape[2:] == (1, 1) and set(pads) == {0}:
        return _pointwise(graph, node, weight, offset, (source[2], source[3]))
    if weight.shape[2:] != (3, 3) or set(attribute(node, "dilations", [1])) != {1}:
        return None
    problem = winograd_conv.Problem(
        channels, outputs, (source[2], source[3]), (pads[0], pads[1], pads[2], pads[3])
    )
    if min(problem.out_size) < 1:
        return None
    plan = winograd_conv.plan(problem, largest_tile)

    def write(writer: PixelWriter) -> Rows:
        rows = writer.rows(node.input[0])
        hint = node.output[0]
        return winograd_conv.write(writer, rows, weight, offset, problem, plan.tile, hint)

    direct = winograd_conv.predict_direct(problem)
    return Operator((node.input[0],), direct, plan.instructions, write)


def _pointwise(
    graph: Graph, node: NodeProto, weight: np.ndarray, bias: np.ndarray, size: tuple[int, int]
) -> Operator:
    """A 1x1 convolution: one matrix product, whatever the order of the pixels."""
    outputs, channels = weight.shape[:2]
    source, positions = node.input[0], size[0] * size[1]

    def write(writer: PixelWriter) -> Rows:
        rows, hint = writer.rows(source), node.output[0]
        inputs = [
            writer.matrix(rows),
            graph.constant(weight[:, :, 0, 0].T, f"{hint}/weight"),
            graph.constant(bias, f"{hint}/bias"),
        ]
        product = graph.add("Gemm", inputs, f"{hint}/rows")
        return Rows(product, size, outputs, rows.pixels)

    by_pixels = cost.gemm(positions, channels, outputs, packed=True) + 0.5 * positions * outputs
    by_channels = cost.convolution(1, channels, outputs, (1, 1), size, 1)
    return Operator((source,), by_channels, by_pixels, write)


def _unary(graph: Graph, node: NodeProto) -> Operator | None:
    shape = _map_shape(graph, node.input[0])
    if shape is None or not all(graph.is_constant(name) for name in node.input[1:] if name):
        return None
    count = prod(shape)
    maker = graph.producer(node.input[0])
    fused = is_op(maker, "Conv") and graph.only_consumer(node.input[0]) is not None
    fuses = fused and is_op(node, *_ACTIVATIONS)

    def write(writer: PixelWriter) -> Rows:
        rows = writer.rows(node.input[0])
        inputs = [rows.tensor, *node.input[1:]]
        name = graph.add(node.op_type, inputs, f"{node.output[0]}/rows", **attributes(node))
        return Rows(name, rows.size, rows.channels, rows.pixels, rows.flat)

    by_channels = count * (cost.FUSED_ACTIVATION if fuses else cost.UNARY)
    return Operator((node.input[0],), by_channels, count * cost.UNARY, write)


def _binary(graph: Graph, node: NodeProto) -> Operator | None:
    shape = _map_shape(graph, node.output[0])
    if shape is None or len(node.input) != 2:
        return None
    maps = [name for name in node.input if not graph.is_constant(name)]
    per_channel: dict[str, np.ndarray] = {}
    for name in node.input:
        value = graph.value(name)
        if value is None:
            if graph.shape(name) != shape:
                return None
        elif value.size == 1:
            per_channel[name] = value.reshape(1)
        elif value.size == shape[1] and value.shape[-3:] == (shape[1], 1, 1):
            per_channel[name] = value.reshape(-1)
        else:
            return None
    if not maps:
        return None

    def write(writer: PixelWriter) -> Rows:
        sides = {name: writer.rows(name) for name in dict.fromkeys(maps)}
        first = sides[maps[0]]
        if any(not np.array_equal(r.pixels, first.pixels) for r in sides.values()):
            sides = {name: writer.in_raster(r) for name, r in sides.items()}
            first = sides[maps[0]]
        inputs = [
            graph.constant(per_channel[name], f"{name}/row")
            if name in per_channel
            else writer.matrix(sides[name])
            for name in node.input
        ]
        name = graph.add(node.op_type, inputs, f"{node.output[0]}/rows")
        return Rows(name, first.size, first.channels, first.pixels)

    each = cost.BINARY if not per_channel else cost.BINARY_PER_CHANNEL
    count = prod(shape)
    return Operator(tuple(maps), count * each, count * each, write)


def _resize(graph: Graph, node: NodeProto) -> Operator | None:
    """Bilinear only: nearest neighbours cost more on rows."""
    source, target = _map_shape(graph, node.input[0]), _map_shape(graph, node.output[0])
    plain = (
        source is not None
        and target is not None
        and source[:2] == target[:2]
        and attribute(node, "mode", "nearest") == "linear"
        and attribute(node, "coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
        and attribute(node, "antialias", 0) == 0
        and not attribute(node, "axes", [])
        and all(graph.is_constant(name) for name in node.input[1:] if name)
    )
    if not plain or source is None or target is None:
        return None
    scales = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None

    def write(writer: PixelWriter) -> Rows:
        rows = writer.in_raster(writer.rows(node.input[0]))
        last = writer.graph.reshape(rows.tensor, (1, *rows.size, rows.channels))
        if scales is not None and scales.size == 4:
            order = graph.constant(scales[[0, 2, 3, 1]], "scales")
            inputs = [last, "", order]
        else:
            sizes = np.array((1, target[2], target[3], target[1]), np.int64)
            inputs = [last, "", "", graph.constant(sizes, "sizes")]
        name = graph.add("Resize", inputs, f"{node.output[0]}/rows", **attributes(node))
        size = (target[2], target[3])
        return Rows(name, size, rows.channels, raster(size), flat=False)

    count = prod(target)
    first, last = count * cost.RESIZE_CHANNELS_FIRST, count * cost.RESIZE_CHANNELS_LAST
    return Operator((node.input[0],), first, last, write)


def _pool(graph: Graph, node: NodeProto) -> Operator | None:
    """Pooling of windows that touch and do not overlap: two reductions."""
    source, target = _map_shape(graph, node.input[0]), _map_shape(graph, node.output[0])
    kernel = tuple(attribute(node, "kernel_shape", []))
    plain = (
        source is not None
        and target is not None
        and len(node.output) == 1
        and kernel == tuple(attribute(node, "strides", [1, 1]))
        and set(attribute(node, "pads", [0])) == {0}
        and set(attribute(node, "dilations", [1])) == {1}
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )
    if not plain or source is None or target is None or len(kernel) != 2:
        return None
    if (source[2], source[3]) != (target[2] * kernel[0], target[3] * kernel[1]):
        return None
    reduction = "ReduceMax" if node.op_type == "MaxPool" else "ReduceMean"

    def reduce(writer: PixelWriter, tensor: str) -> str:
        inputs, attributes = [tensor], {"keepdims": 0, "axes": [1]}
        if graph.opset >= 18:
            inputs.append(graph.constant(np.array([1], np.int64), "axis"))
            del attributes["axes"]
        return writer.graph.add(reduction, inputs, f"{node.output[0]}/pool", **attributes)

    def write(writer: PixelWriter) -> Rows:
        rows = writer.in_raster(writer.rows(node.input[0]))
        c, (height, width) = rows.channels, (target[2], target[3])
        view = writer.graph.reshape(rows.tensor, (source[2] * width, kernel[1], c))
        view = writer.graph.reshape(reduce(writer, view), (height, kernel[0], width * c))
        size = (height, width)
        return Rows(reduce(writer, view), size, c, raster(size), flat=False)

    count = prod(source)
    first, last = count * cost.POOL_CHANNELS_FIRST, count * cost.POOL_CHANNELS_LAST
    return Operator((node.input[0],), first, last, write)


def _concat(graph: Graph, node: NodeProto) -> Operator | None:
    shape = _map_shape(graph, node.output[0])
    if shape is None or attribute(node, "axis", 0) not in (1, -3):
        return None
    if any(_map_shape(graph, name) is None for name in node.input):
        return None

    def write(writer: PixelWriter) -> Rows:
        sides = [writer.in_raster(writer.rows(name)) for name in node.input]
        name = graph.add("Concat", [s.tensor for s in sides], f"{node.output[0]}/rows", axis=1)
        return Rows(name, sides[0].size, shape[1], sides[0].pixels)

    count = prod(shape)
    return Operator(tuple(node.input), count * cost.CONCAT, count * 1.0, write)
