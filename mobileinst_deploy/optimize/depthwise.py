"""Depthwise convolutions with stride 2 or 5x5 kernels, computed on the four phases of their input.

ONNX Runtime has a fast ARM kernel for one depthwise shape, 3x3 with stride 1; every other one is
spread out for a matrix product with a single row, and stride 2 spreads element by element. A map
split into its even and odd rows and columns turns stride 2 into stride 1 and kernels of five taps
into kernels of three:

- *summed*: stride 2 as one 3x3 depthwise convolution per phase, each added to the one before;
- *grouped*: the four phases of a channel as the inputs of one group, with one output (stride 2) or
  the four phases of the output (stride 1).

A 1x1 convolution before or after works on any arrangement of pixels, so the phases are split where
there are fewest channels, and a transposed convolution of ones and zeros puts them together again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import NodeProto

from mobileinst_deploy.optimize import cost
from mobileinst_deploy.optimize.graph import Graph, attribute, attributes, is_op

_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh")
_PHASES = tuple((row, column) for row in (0, 1) for column in (0, 1))
Way = Literal["summed", "grouped"]


@dataclass(frozen=True)
class _Depthwise:
    """A depthwise convolution on a map of even height and width.

    Attributes:
        node: The Conv.
        weight: (C, 1, k, k) float32; k is 3 or 5.
        stride: 1 or 2.
        pad: Zeros above and to the left: half of k, or none, as TensorFlow pads 3x3 of stride 2.
        cell: (height, width) of one phase.
        before: Nodes from a 1x1 convolution up to this one, if all there is between are
            activations that nothing else reads.
        after: Nodes from this one to a 1x1 convolution, likewise; only sought with stride 1.
        fewest: (channels where phases are split, channels where they are joined).
    """

    node: NodeProto
    weight: np.ndarray
    stride: int
    pad: int
    cell: tuple[int, int]
    before: tuple[NodeProto, ...]
    after: tuple[NodeProto, ...]
    fewest: tuple[int, int]

    @property
    def channels(self) -> int:
        """C."""
        return int(self.weight.shape[0])

    @property
    def taps(self) -> int:
        """Side of the kernel on phases: from the first cell that is read to the last."""
        return 2 if self.weight.shape[2] == 3 else 3

    @property
    def cells_before(self) -> int:
        """How many cells before its own the first is that is read."""
        return min(self.pad, 1)

    @property
    def source(self) -> str:
        """The tensor whose phases are split."""
        return str((*self.before, self.node)[0].input[0])


def split_depthwise(graph: Graph) -> int:
    """Rewrite the depthwise convolutions that are cheaper on phases; return their number."""
    done = 0
    for node in list(graph.nodes):
        found = _match(graph, node)
        if found is None:
            continue
        ways: tuple[Way, ...] = ("summed", "grouped") if found.stride == 2 else ("grouped",)
        price, way = min((_price(found, way), way) for way in ways)
        if price >= _price_as_it_stands(found):
            continue
        output = _write_summed(graph, found) if way == "summed" else _write_grouped(graph, found)
        graph.redirect((found.node, *found.after)[-1].output[0], output)
        graph.remove((*found.before, found.node, *found.after))
        done += 1
    graph.prune()
    return done


# Finding ----------------------------------------------------------------------------------------


def _match(graph: Graph, node: NodeProto) -> _Depthwise | None:
    if not is_op(node, "Conv"):
        return None
    weight, shape = graph.value(node.input[1]), graph.shape(node.input[0])
    if weight is None or shape is None or len(shape) != 4 or weight.dtype != np.float32:
        return None
    kernel = weight.shape[2]
    strides = tuple(attribute(node, "strides", [1, 1]))
    pads = list(attribute(node, "pads", [0] * 4))
    padded_after = (kernel, strides, pads) == (3, (2, 2), [0, 0, 1, 1])
    fits = (
        shape[0] == 1
        and weight.shape == (shape[1], 1, kernel, kernel)
        and attribute(node, "group", 1) == shape[1]
        and (kernel, strides) in ((3, (2, 2)), (5, (2, 2)), (5, (1, 1)))
        and (pads == [kernel // 2] * 4 or padded_after)
        and set(attribute(node, "dilations", [1])) == {1}
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
        and shape[2] % 2 == shape[3] % 2 == 0
        and _rest_is_constant(graph, node)
    )
    if not fits:
        return None
    before = _before(graph, node)
    after = _after(graph, node) if strides == (1, 1) else ()
    first = graph.shape(before[0].input[0]) if before else shape
    last = graph.shape(after[-1].output[0]) if after else shape
    if first is None or last is None:
        return None
    cell = shape[2] // 2, shape[3] // 2
    fewest = first[1], last[1]
    return _Depthwise(node, weight, strides[0], pads[0], cell, before, after, fewest)


def _before(graph: Graph, node: NodeProto) -> tuple[NodeProto, ...]:
    nodes: list[NodeProto] = []
    while True:
        tensor = (nodes[-1] if nodes else node).input[0]
        maker = graph.producer(tensor)
        if maker is None or graph.only_consumer(tensor) is None:
            return ()
        nodes.append(maker)
        if _is_pointwise(graph, maker):
            return tuple(nodes[::-1])
        if not _is_activation(graph, maker):
            return ()


def _after(graph: Graph, node: NodeProto) -> tuple[NodeProto, ...]:
    nodes: list[NodeProto] = []
    while True:
        reader = graph.only_consumer((nodes[-1] if nodes else node).output[0])
        if reader is None:
            return ()
        nodes.append(reader)
        if _is_pointwise(graph, reader):
            return tuple(nodes)
        if not _is_activation(graph, reader):
            return ()


def _is_activation(graph: Graph, node: NodeProto) -> bool:
    return is_op(node, *_ACTIVATIONS) and _rest_is_constant(graph, node)


def _is_pointwise(graph: Graph, node: NodeProto) -> bool:
    weight = graph.value(node.input[1]) if is_op(node, "Conv") else None
    return (
        weight is not None
        and weight.shape[2:] == (1, 1)
        and attribute(node, "group", 1) == 1
        and set(attribute(node, "strides", [1])) == {1}
        and set(attribute(node, "pads", [0])) == {0}
        and _rest_is_constant(graph, node)
    )


def _rest_is_constant(graph: Graph, node: NodeProto) -> bool:
    return all(graph.is_constant(name) for name in node.input[1:] if name)


# Choosing ---------------------------------------------------------------------------------------


def _price_as_it_stands(found: _Depthwise) -> float:
    kernel = found.weight.shape[2]
    size = found.cell if found.stride == 2 else (2 * found.cell[0], 2 * found.cell[1])
    return cost.convolution(found.channels, 1, 1, (kernel, kernel), size, found.stride)


def _price(found: _Depthwise, way: Way) -> float:
    positions = found.cell[0] * found.cell[1]
    split = 4 * positions * found.fewest[0] * cost.SPACE_TO_DEPTH
    if way == "summed":
        each = cost.convolution(found.channels, 1, 1, (3, 3), found.cell, 1, (1, 1, 1, 1))
        added = 3 * found.channels * positions * cost.FUSED_ADDITION
        return split + 4 * each + added + 12 * cost.NODE
    outputs = 1 if found.stride == 2 else 4
    kernel = (found.taps, found.taps)
    product = cost.convolution(found.channels, 4, outputs, kernel, found.cell, 1)
    joined = 0.0 if found.stride == 2 else 4 * positions * found.fewest[1] * cost.DEPTH_TO_SPACE
    return split + product + joined + 6 * cost.NODE


# Writing ----------------------------------------------------------------------------------------


def _write_summed(graph: Graph, found: _Depthwise) -> str:
    """One 3x3 depthwise convolution for each phase; the bias goes with the first."""
    hint = found.node.output[0]
    phases = graph.add("SpaceToDepth", [found.source], f"{hint}/phases", blocksize=2)
    total = ""
    parts = graph.split(phases, 4, found.fewest[0], axis=1, hint=f"{hint}/phase")
    for i, phase in enumerate(parts):
        inputs = [_replay(graph, found.before, phase)]
        kernel = np.zeros((found.channels, 1, 3, 3), np.float32)
        start = 1 - found.cells_before
        window = np.s_[start : start + found.taps]
        kernel[:, :, window, window] = _phase_kernel(found, _PHASES[i], (0, 0))
        inputs.append(graph.constant(kernel, f"{hint}/weight"))
        inputs.extend(found.node.input[2:] if i == 0 else [])
        part = graph.add(
            "Conv",
            inputs,
            f"{hint}/part",
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            group=found.channels,
        )
        total = graph.add("Add", [part, total], f"{hint}/sum") if total else part
    return total


def _write_grouped(graph: Graph, found: _Depthwise) -> str:
    """One convolution whose groups hold the four phases of a channel."""
    hint, c, (height, width) = found.node.output[0], found.channels, found.cell
    few = found.fewest[0]
    phases = graph.add("SpaceToDepth", [found.source], f"{hint}/phases", blocksize=2)
    phases = graph.reshape(phases, (4, few, height * width))
    phases = graph.add("Transpose", [phases], f"{hint}/by_channel", perm=[1, 0, 2])
    phases = _replay(graph, found.before, graph.reshape(phases, (1, few, 4 * height, width)))
    out_phases = ((0, 0),) if found.stride == 2 else _PHASES
    kernel = np.stack(
        [
            np.concatenate([_phase_kernel(found, source, target) for source in _PHASES], axis=1)
            for target in out_phases
        ],
        axis=1,
    ).reshape(len(out_phases) * c, 4, found.taps, found.taps)
    inputs = [graph.reshape(phases, (1, 4 * c, height, width)), graph.constant(kernel, hint)]
    for name in found.node.input[2:]:
        bias = graph.value(name)
        if bias is not None:
            inputs.append(graph.constant(np.repeat(bias, len(out_phases)), name))
    begin, end = found.cells_before, found.taps - 1 - found.cells_before
    output = graph.add(
        "Conv",
        inputs,
        f"{hint}/grouped",
        kernel_shape=[found.taps, found.taps],
        pads=[begin, begin, end, end],
        group=c,
    )
    if found.stride == 2:
        return output
    if found.after:
        output = graph.reshape(output, (1, c, 4 * height, width))
        output = _replay(graph, found.after, output)
        c = found.fewest[1]
        output = graph.reshape(output, (1, 4 * c, height, width))
    place = np.tile(np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2), (c, 1, 1, 1))
    return graph.add(
        "ConvTranspose",
        [output, graph.constant(place, "place_phases")],
        f"{hint}/joined",
        kernel_shape=[2, 2],
        strides=[2, 2],
        group=c,
    )


def _replay(graph: Graph, nodes: tuple[NodeProto, ...], tensor: str) -> str:
    """The same nodes on another input."""
    for node in nodes:
        inputs = [tensor, *node.input[1:]]
        tensor = graph.add(node.op_type, inputs, f"{node.output[0]}/phase", **attributes(node))
    return tensor


def _phase_kernel(
    found: _Depthwise, source: tuple[int, int], target: tuple[int, int]
) -> np.ndarray:
    """(C, 1, taps, taps): what one phase of the input contributes to one of the output.

    Tap u reads the input 2 * cell + target + u - pad, which is phase ``source`` of another cell.
    """
    kernel = found.weight.shape[2]
    result = np.zeros((found.channels, 1, found.taps, found.taps), np.float32)
    for u in range(kernel):
        for v in range(kernel):
            row, column = target[0] + u - found.pad, target[1] + v - found.pad
            if (row % 2, column % 2) == source:
                y, x = row // 2 + found.cells_before, column // 2 + found.cells_before
                result[:, :, y, x] = found.weight[:, :, u, v]
    return result
