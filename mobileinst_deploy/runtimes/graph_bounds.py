"""How much memory and work does an ONNX graph ask for? Told from its shapes, before any runtime.

A few bytes can say that a constant has 2**40 elements, and a runtime makes constants while it
loads; as few can multiply matrices for years. A simplified graph has no value of unknown size, so
one that has is refused, too: what its shapes say then holds whatever the picture shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.runtimes.graph_work import work_of

if TYPE_CHECKING:
    import onnx

    from mobileinst_deploy.core.bundle import ExportBundle

#: Of all constants that a graph computes: a runtime holds each twice while it loads.
MOST_CONSTANTS = 1 << 29
#: Of any one value, free axes taken as 1; the activations of a network are far smaller.
MOST_VALUE = 1 << 30
#: Work (:func:`graph_work.work_of`) of a run: minutes of a core. The paper's largest has 25e9, and
#: the largest peer 0.07e12 at the sizes tried here.
MOST_WORK = 1 << 43
#: ONNX's own operators; no graph that the toolchain writes has others.
_DOMAINS = {"", "ai.onnx"}
_LONGEST_KEPT = 1 << 12


def require_bounded(bundle: ExportBundle) -> None:
    """Refuse a pair whose graphs ask for too much memory or work, before a runtime loads them.

    Raises:
        BundleError: A graph does, or its shapes contradict each other.
    """
    for graph in bundle.graphs.values():
        try:
            fault = bounds_fault(graph.onnx.data)
        except ValueError as error:
            fault = f"is not an ONNX file: {error}"
        if fault is not None:
            raise BundleError(
                f"{graph.onnx.path} {fault}",
                "Export the model again with `mobileinst export`; a network of your own must give"
                " each value a fixed, moderate size",
            )


def bounds_fault(model: bytes) -> str | None:
    """Why a serialised model asks for too much memory or work, or None.

    Raises:
        ValueError: It is not in protobuf's form, or holds names that are no text.
    """
    import onnx
    import onnx.inliner
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ValueError("it was cut off, or is another kind of file") from error
    constants = {tensor.name for tensor in graph.graph.initializer}
    for tensor in graph.graph.initializer:
        if len(tensor.raw_data) > _LONGEST_KEPT:  # weights are no shapes, and need no copying
            tensor.raw_data = b""
    for value in graph.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    try:
        if graph.functions:
            graph = onnx.inliner.inline_local_functions(graph)
        graph = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    except Exception:  # its own, and whatever its C++ lets through
        return "has shapes that contradict each other"
    asked = _Asked()
    asked.add(graph.graph, constants, {})
    if asked.foreign:
        return f"computes with the operator {shown(asked.foreign, 60)}, which is not ONNX's own"
    if asked.unknown:
        return f"computes {shown(asked.unknown, 60)!r}, whose size its shapes do not tell"
    if asked.largest > MOST_VALUE:
        return f"holds a value of {_mib(asked.largest)}, and {_mib(MOST_VALUE)} are the most"
    if asked.constants > MOST_CONSTANTS:
        return (
            f"computes constants of {_mib(asked.constants)}, and {_mib(MOST_CONSTANTS)} are the"
            " most"
        )
    if asked.work > MOST_WORK:
        return (
            f"computes {asked.work / 1e12:,.0f}e12 multiply-accumulates a run, and"
            f" {MOST_WORK / 1e12:.0f}e12 are the most"
        )
    return None


class _Asked:
    """Bytes of the values of a graph and of what is inside its nodes, and its work."""

    def __init__(self) -> None:
        self.largest = 0
        self.constants = 0
        self.work = 0
        self.unknown = ""
        self.foreign = ""

    def add(
        self, graph: onnx.GraphProto, known: Iterable[str], outside: Mapping[str, Sequence[int]]
    ) -> None:
        """Count a graph's values and nodes.

        Args:
            graph: With inferred shapes.
            known: Names of constants that it sees from outside, its initialisers included.
            outside: Shapes of what it sees from outside.
        """
        constants = {*known, *(tensor.name for tensor in graph.initializer)}
        values = (*graph.input, *graph.value_info, *graph.output)
        shapes = {
            **outside,
            **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer},
            **{value.name: _lengths(value) for value in values},
        }
        of = {value.name: _bytes_of(value) for value in values}
        self.largest = max((self.largest, *(size for size, _ in of.values())))
        for node in graph.node:
            words = (node.op_type, node.domain, *node.input, *node.output)
            if not all(isinstance(word, str) for word in words):  # protobuf gives such as bytes
                raise ValueError("a name in it is no text")
            if node.domain not in _DOMAINS:
                self.foreign = self.foreign or f"{node.domain}.{node.op_type}"
            inner = [g for a in node.attribute for g in (a.g, *a.graphs) if g.node]
            for each in inner:
                self.add(each, constants, shapes)
            self.work += work_of(node, shapes)
            constant = not inner and constants.issuperset(filter(None, node.input))
            for name in filter(None, node.output):
                size, told = of.get(name, (0, False))
                self.unknown = self.unknown or ("" if told else name)
                if constant:
                    constants.add(name)
                    self.constants += size


def _bytes_of(value: onnx.ValueInfoProto) -> tuple[int, bool]:
    """A value's size, with unknown lengths taken as 1, and whether there are none."""
    tensor = value.type.tensor_type
    known = all(d.HasField("dim_value") for d in tensor.shape.dim)
    whole = known and bool(tensor.elem_type) and tensor.HasField("shape")
    return prod(_lengths(value)) * _width(tensor.elem_type), whole


def _lengths(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """A value's shape, with unknown lengths taken as 1."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else 1 for d in dims)


def _width(elem_type: int) -> int:
    """Bytes of an element; of what numpy does not know, those of the widest."""
    import onnx

    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
    except (KeyError, ValueError):
        return 8


def _mib(size: int) -> str:
    return f"{size >> 20:,} MiB"
