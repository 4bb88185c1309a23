"""How much does one operator of an ONNX graph compute? An upper bound, from shapes alone.

The unit is a multiply-accumulate, or one element read or written. What matters is that no
operator does much more than is counted, so that a graph cannot hide hours of work.

Example:
    >>> import onnx
    >>> node = onnx.helper.make_node("MatMul", ["a", "b"], ["y"])
    >>> work_of(node, {"a": (64, 256), "b": (256, 100), "y": (64, 100)})
    3186688
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, TypeAlias, overload

if TYPE_CHECKING:
    import onnx

Shapes: TypeAlias = Mapping[str, Sequence[int]]

#: For an element of what is no product: bicubic sampling reads 16, sorting compares up to 30.
PER_ELEMENT = 32
#: Samples a cell, each way, where RoiAlign takes as many as a box asks for.
_SAMPLES_BY_BOX = 1 << 16
#: Instead of inputs that a damaged node lacks.
_NONE = ("", "", "", "")


def work_of(node: onnx.NodeProto, shapes: Shapes) -> int:
    """The most that a node computes, without what is inside its subgraphs.

    Args:
        node: One of ONNX's own operators.
        shapes: Of its inputs and outputs, by name; a missing one counts as one element.

    Returns:
        Multiply-accumulates, from 0 up.
    """
    inputs = [shapes.get(name, ()) for name in (*node.input, *_NONE[len(node.input) :])]
    made = prod(shapes.get(node.output[0], ())) if node.output else 0
    touched = sum(prod(shapes.get(name, ())) for name in (*node.input, *node.output)) * PER_ELEMENT
    kind = node.op_type.removeprefix("QLinear").removesuffix("Integer")
    if kind == "ConvTranspose":
        product = prod(inputs[0]) * prod(inputs[1][1:])
    elif kind in {"Conv", "DeformConv"}:
        weight = inputs[3 if node.op_type == "QLinearConv" else 1]
        product = made * prod(weight[1:])
    elif kind in {"MatMul", "Gemm"}:
        flipped = _number(node, "transA", 0)
        product = made * (inputs[0][-2 if flipped and len(inputs[0]) > 1 else -1 :] or (1,))[0]
    elif kind == "Einsum":
        product = _einsum(node, inputs[: len(node.input)])
    elif kind in {"RNN", "GRU", "LSTM"}:
        product = prod(inputs[0][:-1]) * (prod(inputs[1]) + prod(inputs[2]))
    elif kind in {"MaxPool", "AveragePool", "LpPool"}:
        area = prod(map(abs, _attribute(node, "kernel_shape", [1])))
        product = made * min(area, prod(inputs[0][2:]))
    elif kind == "RoiAlign":
        product = made * (_number(node, "sampling_ratio", 0) or _SAMPLES_BY_BOX) ** 2
    elif kind == "LRN":
        product = made * min(abs(_number(node, "size", 1)), max(inputs[0], default=1))
    elif kind in {"Det", "DFT", "STFT"} or "Attention" in kind:
        longest = max((max(shape, default=1) for shape in inputs), default=1)
        product = prod(inputs[0]) * longest * max(1, _number(node, "num_heads", 1))
    else:
        product = 0
    return product + touched


def _einsum(node: onnx.NodeProto, inputs: Sequence[Sequence[int]]) -> int:
    """Lengths of all letters multiplied; with "..." of unknown extent, all inputs' elements."""
    equation = _attribute(node, "equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if "." in equation or [len(term) for term in terms] != [len(shape) for shape in inputs]:
        return prod(map(prod, inputs))
    letters = dict(zip("".join(terms), (n for shape in inputs for n in shape), strict=True))
    return prod(letters.values())


def _number(node: onnx.NodeProto, name: str, usual: int) -> int:
    return _attribute(node, name, [usual])[0]


@overload
def _attribute(node: onnx.NodeProto, name: str, usual: str) -> str: ...
@overload
def _attribute(node: onnx.NodeProto, name: str, usual: list[int]) -> list[int]: ...
def _attribute(node: onnx.NodeProto, name: str, usual: str | list[int]) -> str | list[int]:
    """An attribute's value; as usual where a damaged one has another type."""
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            if isinstance(usual, str) and attribute.type == onnx.AttributeProto.STRING:
                return str(attribute.s, errors="replace")
            if isinstance(usual, list) and attribute.type == onnx.AttributeProto.INT:
                return [attribute.i]
            if isinstance(usual, list) and attribute.type == onnx.AttributeProto.INTS:
                return list(attribute.ints) or usual
    return usual
