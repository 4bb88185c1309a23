"""ONNX files: read with suspicion, described for people, marked with where they came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mobileinst_deploy.core.contract import TensorSpec
from mobileinst_deploy.core.errors import BundleError

METADATA_PREFIX = "mobileinst."
#: Operators that the paper's own runtime, TNN, has no kernel for; they stay out of both graphs.
FORBIDDEN_OPS = frozenset({"Einsum", "TopK", "Where", "Greater"})
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


def load_graph(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file; external data is refused, as a pair's graphs are whole.

    Raises:
        BundleError: It is missing, empty, truncated, not ONNX, or not valid.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}", _EXPORT_AGAIN) from error
    try:
        graph = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise BundleError(f"{path} is not an ONNX file, or was cut off", _EXPORT_AGAIN) from error
    if not graph.graph.node or not graph.graph.output:
        raise BundleError(f"{path} holds no graph", _EXPORT_AGAIN)
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.graph.initializer):
        raise BundleError(f"{path} keeps its weights in another file", _EXPORT_AGAIN)
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise BundleError(f"{path} is not a valid graph: {reason}", _EXPORT_AGAIN) from error
    return graph


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
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        except (KeyError, ValueError):
            dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
        specs.append(TensorSpec(value.name, dtype, shape))
    return tuple(specs)


def float_dtypes(graph: onnx.ModelProto) -> dict[str, str]:
    """Initialisers and Cast targets that are floating point but not float32, by name.

    A graph that passes for fp32 while half of it computes in fp16 is a known way to be misled.
    """
    wrong = {}
    other = {
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
    for tensor in _constants(graph):
        if tensor.data_type in other:
            wrong[tensor.name] = onnx.TensorProto.DataType.Name(tensor.data_type)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in other:
                wrong[node.name or node.output[0]] = onnx.TensorProto.DataType.Name(attribute.i)
    return wrong


def _constants(graph: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initialisers, and the values of Constant nodes under the names of their outputs."""
    yield from graph.graph.initializer
    for node in graph.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            yield tensor


def summarise(path: Path, free_axes: Mapping[str, int] | None = None) -> GraphSummary:
    """Describe an ONNX file.

    Args:
        path: The file.
        free_axes: Lengths to assume for free axes when counting; 1 for those not named.

    Raises:
        BundleError: It cannot be read or its shapes contradict each other.
    """
    graph = load_graph(path)
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
        macs=count_graph_macs(graph, lengths),
        free_axes=lengths,
        bytes=path.stat().st_size,
        metadata=get_metadata(graph),
    )


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
    except onnx.shape_inference.InferenceError as error:
        raise BundleError("the graph's shapes contradict each other", _EXPORT_AGAIN) from error
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    try:
        return sum(_node_macs(node, shapes) for node in inferred.graph.node)
    except KeyError:
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
