"""ONNX files: read with suspicion, described for people, marked with where they came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from mobileinst_deploy.core.content import Content, read_content
from mobileinst_deploy.core.contract import TensorSpec
from mobileinst_deploy.core.errors import BundleError, InputError
from mobileinst_deploy.core.external_data import fault_of
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.text import shown

METADATA_PREFIX = "mobileinst."
#: Operators that the paper's own runtime, TNN, has no kernel for; they stay out of both graphs.
FORBIDDEN_OPS = frozenset({"Einsum", "TopK", "Where", "Greater"})
_OTHER_NUMBERS = ("FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8")
_EXPORT_AGAIN = "Give an ONNX file, or export the model again with `mobileinst export`"


@dataclass(frozen=True)
class GraphSummary:
    """What is in one ONNX file.

    Attributes:
        inputs: Named tensors it takes.
        outputs: Named tensors it gives.
        opset: Version of the standard operators.
        ops: Number of nodes per operator, most frequent first.
        parameters: Elements of its constants that are floating point.
        macs: Multiply-accumulates of its convolutions and matrix products; None where a shape
            that they depend on is not known.
        free_axes: The lengths that were assumed for free axes to count ``macs``.
        bytes: Size of the file.
        metadata: Its ``metadata_props`` of this project, without the prefix.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    ops: Mapping[str, int]
    parameters: int
    macs: int | None
    free_axes: Mapping[str, int]
    bytes: int
    metadata: Mapping[str, str]


@places(0)
def load_graph(source: Path | Content) -> onnx.ModelProto:
    """Understand and check an ONNX file; external data is refused, as a pair's graphs are whole.

    Args:
        source: The file, or what was read of it: a pair's graphs are read once.

    Raises:
        BundleError: It is missing, empty, truncated, not ONNX, or not valid.
    """
    try:
        content = source if isinstance(source, Content) else read_content(source)
    except InputError as error:
        raise BundleError(error.cause, _EXPORT_AGAIN) from error
    path = content.path
    try:
        graph = onnx.load_model_from_string(content.data)
        fault = fault_of(content.data)
    except (DecodeError, ValueError) as error:
        raise BundleError(f"{path} is not an ONNX file, or was cut off", _EXPORT_AGAIN) from error
    if not _is_text(graph):
        raise BundleError(f"{path} holds names that are not UTF-8", _EXPORT_AGAIN)
    if not graph.graph.node or not graph.graph.output:
        raise BundleError(f"{path} holds no graph", _EXPORT_AGAIN)
    if fault is not None:
        raise BundleError(f"{path} {fault}", _EXPORT_AGAIN)
    try:
        onnx.checker.check_model(graph)
    except Exception as error:  # the checker's own, and whatever its C++ lets through
        reason = shown((str(error).strip().splitlines() or [type(error).__name__])[0], 300)
        raise BundleError(f"{path} is not a valid graph: {reason}", _EXPORT_AGAIN) from error
    return graph


def _is_text(message: Message) -> bool:
    """Whether every text in a message is one; protobuf hands out what is not UTF-8 as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        many = (value,) if isinstance(value, str | bytes | Message) else value
        if field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in many):
            return False
        if field.type == field.TYPE_MESSAGE and not all(_is_text(inner) for inner in many):
            return False
    return True


def set_metadata(graph: onnx.ModelProto, values: Mapping[str, str]) -> None:
    """Set this project's ``metadata_props``; those of others stay."""
    kept = {p.key: p.value for p in graph.metadata_props}
    kept.update({METADATA_PREFIX + key: value for key, value in values.items()})
    onnx.helper.set_model_props(graph, kept)


def get_metadata(graph: onnx.ModelProto) -> dict[str, str]:
    """This project's ``metadata_props``, without their prefix."""
    return {
        p.key.removeprefix(METADATA_PREFIX): p.value
        for p in graph.metadata_props
        if p.key.startswith(METADATA_PREFIX)
    }


def opset_of(graph: onnx.ModelProto) -> int:
    """Version of the standard operators; 0 where a graph uses none of them."""
    return next((o.version for o in graph.opset_import if o.domain in ("", "ai.onnx")), 0)


def tensor_specs(
    values: list[onnx.ValueInfoProto], initialisers: frozenset[str] = frozenset()
) -> tuple[TensorSpec, ...]:
    """Graph inputs or outputs as specs; a dtype that numpy does not know keeps onnx's name."""
    specs = []
    for value in values:
        if value.name in initialisers:
            continue
        tensor = value.type.tensor_type
        shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
        specs.append(TensorSpec(value.name, _dtype(tensor.elem_type), shape))
    return tuple(specs)


def _dtype(number: int) -> str:
    """What numpy calls an element type, or onnx where numpy has none, or else its number."""
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)
    except (KeyError, ValueError):
        known: dict[int, str] = {value: name for name, value in onnx.TensorProto.DataType.items()}
        return known.get(number, f"type {number}").lower()


@dataclass(frozen=True)
class OtherNumbers:
    """Numbers in a graph that are not float32: floats of other widths, and 8-bit integers.

    A graph that passes for fp32 while half of it computes in fp16 is a known way to be misled.

    Attributes:
        stored: Constants, by name, and what they are.
        computed: Nodes that give such numbers, by name, and what they give.
    """

    stored: Mapping[str, str]
    computed: Mapping[str, str]


def other_numbers(graph: onnx.ModelProto) -> OtherNumbers:
    """What in a graph is not float32; whole numbers that count or index are no such numbers."""
    other = {
        number: onnx.TensorProto.DataType.Name(number)
        for number in onnx.TensorProto.DataType.values()
        if onnx.TensorProto.DataType.Name(number) in _OTHER_NUMBERS
    }
    stored = {t.name: other[t.data_type] for t in _constants(graph) if t.data_type in other}
    computed: dict[str, str] = {}
    inferred = onnx.shape_inference.infer_shapes(graph)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    for node in all_nodes(graph):
        if node.op_type == "Constant":
            continue
        casts = [a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"]
        for given in (*casts, *(types.get(name, 0) for name in node.output)):
            if given in other:
                computed.setdefault(node.name or node.output[0], other[given])
    return OtherNumbers(stored, computed)


def all_nodes(graph: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs and functions too."""
    waiting = [*graph.graph.node, *(node for function in graph.functions for node in function.node)]
    waiting.reverse()
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                waiting.extend(reversed(inner.node))


def _graphs(graph: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield graph.graph
    for node in all_nodes(graph):
        for attribute in node.attribute:
            yield from (attribute.g, *attribute.graphs)


def _constants(graph: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initialisers, and the values of Constant nodes under the names of their outputs."""
    for inner in _graphs(graph):
        yield from inner.initializer
    for node in all_nodes(graph):
        standard = node.op_type == "Constant" and node.domain in ("", "ai.onnx")
        for value in (a for a in node.attribute if standard and a.name == "value"):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            yield tensor


def summarise(source: Path | Content, free_axes: Mapping[str, int] | None = None) -> GraphSummary:
    """Describe an ONNX file.

    Args:
        source: The file, or what was read of it.
        free_axes: Lengths to assume for free axes when counting; 1 for those not named.

    Raises:
        BundleError: It cannot be read or its shapes contradict each other.
    """
    content = source if isinstance(source, Content) else read_content(source)
    graph = load_graph(content)
    initialisers = frozenset(t.name for t in graph.graph.initializer)
    inputs = tensor_specs(list(graph.graph.input), initialisers)
    symbols = {v for t in inputs for v in t.shape if isinstance(v, str)}
    lengths = {s: (free_axes or {}).get(s, 1) for s in symbols}
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return GraphSummary(
        inputs=inputs,
        outputs=tensor_specs(list(graph.graph.output)),
        opset=opset_of(graph),
        ops=dict(Counter(n.op_type for n in graph.graph.node).most_common()),
        parameters=sum(prod(t.dims) for t in _constants(graph) if t.data_type in floats),
        macs=_counted(content.path, graph, lengths),
        free_axes=lengths,
        bytes=content.bytes,
        metadata=get_metadata(graph),
    )


def _counted(path: Path, graph: onnx.ModelProto, free_axes: Mapping[str, int]) -> int | None:
    try:
        return count_graph_macs(graph, free_axes)
    except BundleError as error:
        raise BundleError(f"{path}: {error.cause}", error.next_step, str(path)) from error


def count_graph_macs(graph: onnx.ModelProto, free_axes: Mapping[str, int]) -> int | None:
    """Multiply-accumulates of convolutions and matrix products, 1 each, biases not counted.

    Args:
        graph: A valid graph.
        free_axes: A length for every free axis.

    Returns:
        Their number, or None where the shape of a tensor that they read or write is not known.

    Raises:
        BundleError: Its shapes contradict each other.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in free_axes:
                dim.dim_value = free_axes[dim.dim_param]
    del fixed.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    except Exception as error:  # its own, and whatever its C++ lets through
        said = shown(str(error).strip().splitlines()[-1] if str(error).strip() else "", 200)
        raise BundleError(
            f"the graph's shapes contradict each other: {said}", _EXPORT_AGAIN
        ) from error
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    try:
        return sum(_node_macs(node, shapes) for node in inferred.graph.node)
    except (KeyError, IndexError):
        return None


def _node_macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """One node's; a shape that is needed and not known raises KeyError."""
    if node.op_type == "Conv":
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]
    return 0
