"""What memory does an ONNX graph ask for by itself? Told from its shapes, before any runtime.

A few bytes can say that a constant has 2**40 elements, and a runtime makes constants while it
loads. A simplified graph has none of unknown size, so such a one is refused, too. What depends on
the graph's inputs is bounded where its shape is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING

from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.text import shown

if TYPE_CHECKING:
    import onnx

    from mobileinst_deploy.core.bundle import ExportBundle

#: Of all constants that a graph computes: a runtime holds each twice while it loads.
MOST_CONSTANTS = 1 << 29
#: Of any one value, free axes taken as 1; the activations of a network are far smaller.
MOST_VALUE = 1 << 30
_LONGEST_KEPT = 1 << 12


def require_bounded(bundle: ExportBundle) -> None:
    """Refuse a pair whose graphs ask for too much memory, before a runtime loads them.

    Raises:
        BundleError: A graph does, or its shapes contradict each other.
    """
    for graph in bundle.graphs.values():
        try:
            fault = memory_fault(graph.onnx.data)
        except ValueError as error:
            fault = f"is not an ONNX file: {error}"
        if fault is not None:
            raise BundleError(
                f"{graph.onnx.path} {fault}", "Export the model again with `mobileinst export`"
            )


def memory_fault(model: bytes) -> str | None:
    """Why a serialised model asks for too much memory, or None.

    Raises:
        ValueError: It is not in protobuf's form.
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
    sizes = _Sizes()
    sizes.add(graph.graph, constants)
    if sizes.unknown:
        return f"computes the constant {shown(sizes.unknown, 60)!r}, whose size it does not tell"
    if sizes.largest > MOST_VALUE:
        return f"holds a value of {_mib(sizes.largest)}, and {_mib(MOST_VALUE)} are the most"
    if sizes.constants > MOST_CONSTANTS:
        return (
            f"computes constants of {_mib(sizes.constants)}, and {_mib(MOST_CONSTANTS)} are the"
            " most"
        )
    return None


class _Sizes:
    """Bytes of the values of a graph and of what is inside its nodes."""

    def __init__(self) -> None:
        self.largest = 0
        self.constants = 0
        self.unknown = ""

    def add(self, graph: onnx.GraphProto, known: Iterable[str]) -> None:
        """Count a graph's values.

        Args:
            graph: With inferred shapes.
            known: Names of constants that it sees from outside, its initialisers included.
        """
        constants = {*known, *(tensor.name for tensor in graph.initializer)}
        of = {v.name: _bytes_of(v) for v in (*graph.value_info, *graph.output)}
        self.largest = max((self.largest, *(size for size, _ in of.values())))
        for node in graph.node:
            inner = [g for a in node.attribute for g in (a.g, *a.graphs) if g.node]
            for each in inner:
                self.add(each, constants)
            if inner or not constants.issuperset(filter(None, node.input)):
                continue
            constants.update(node.output)
            for name in filter(None, node.output):
                size, known_size = of.get(name, (0, False))
                self.constants += size
                self.unknown = self.unknown or ("" if known_size else name)


def _bytes_of(value: onnx.ValueInfoProto) -> tuple[int, bool]:
    """A value's size, with unknown lengths taken as 1, and whether there are none."""
    tensor = value.type.tensor_type
    lengths = [d.dim_value if d.HasField("dim_value") else 1 for d in tensor.shape.dim]
    known = all(d.HasField("dim_value") for d in tensor.shape.dim)
    whole = known and bool(tensor.elem_type) and tensor.HasField("shape")
    return prod(lengths) * _width(tensor.elem_type), whole


def _width(elem_type: int) -> int:
    """Bytes of an element; of what numpy does not know, those of the widest."""
    import onnx

    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
    except (KeyError, ValueError):
        return 8


def _mib(size: int) -> str:
    return f"{size >> 20:,} MiB"
