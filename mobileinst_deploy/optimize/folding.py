"""Work that can be done once instead of at every run: constants, and scales beside weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from mobileinst_deploy.optimize.graph import Graph, attribute, attributes, is_op
from mobileinst_deploy.runtimes.onnxruntime import run_graph

#: A folded constant may be this much larger than what it was computed from: the file should not
#: grow for an operator that takes no time.
_ROOM = 1 << 16
#: Never folded: random numbers, and compact forms of weights that the runtime expands itself.
_LEFT_ALONE = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "QuantizeLinear",
    "DequantizeLinear",
)


def fold_constants(graph: Graph) -> int:
    """Compute the nodes that read nothing but constants; return their number.

    Position embeddings, grids of coordinates and arithmetic on shapes are of that kind.
    """
    done = 0
    for node in graph.sorted_nodes():
        reads = [name for name in node.input if name]
        fixed = all(graph.is_constant(name) for name in reads)
        if not fixed or is_op(node, *_LEFT_ALONE) or any(a.HasField("g") for a in node.attribute):
            continue
        values = {name: graph.value(name) for name in reads}
        if any(v is not None and v.dtype == np.float16 for v in values.values()):
            continue
        results = _compute(graph, node, {n: v for n, v in values.items() if v is not None})
        before = sum(v.nbytes for v in values.values() if v is not None)
        if results is None or sum(r.nbytes for r in results) > before + _ROOM:
            continue
        for name, result in zip([o for o in node.output if o], results, strict=True):
            graph.redirect(name, graph.constant(result, f"{name}/folded"))
        graph.remove([node])
        done += 1
    graph.prune()
    return done


def fold_batchnorm(graph: Graph) -> int:
    """Merge BatchNormalization into the convolution before it; return how many were merged."""
    done = 0
    for node in list(graph.nodes):
        if not is_op(node, "BatchNormalization") or attribute(node, "training_mode", 0):
            continue
        scale, shift, mean, variance = (graph.value(name) for name in node.input[1:5])
        if scale is None or shift is None or mean is None or variance is None:
            continue
        factor = scale / np.sqrt(variance + np.float32(attribute(node, "epsilon", 1e-5)))
        done += _into_convolution(graph, node, factor, shift - mean * factor)
    graph.prune()
    return done


def fold_scales(graph: Graph) -> int:
    """Merge a multiplication or addition by constants, per channel, into the convolution before it.

    Returns:
        How many nodes were merged.
    """
    done = 0
    for node in list(graph.nodes):
        if not is_op(node, "Mul", "Div", "Add", "Sub") or len(node.input) != 2:
            continue
        constant = graph.value(node.input[1])
        source = node.input[0]
        if constant is None and is_op(node, "Mul", "Add"):
            constant, source = graph.value(node.input[0]), node.input[1]
        maker = graph.producer(source)
        weight = graph.value(maker.input[1]) if maker is not None and is_op(maker, "Conv") else None
        if constant is None or weight is None:
            continue
        channels = weight.shape[0]
        if constant.size == 1:
            vector = np.full(channels, constant.reshape(-1)[0], np.float32)
        elif constant.size == channels and constant.shape[-3:] == (channels, 1, 1):
            vector = constant.reshape(-1)
        else:
            continue
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        factor, shift = {
            "Mul": (vector, zero),
            "Div": (one / vector, zero),
            "Add": (one, vector),
            "Sub": (one, -vector),
        }[node.op_type]
        done += _into_convolution(graph, node, factor, shift, source)
    graph.prune()
    return done


def absorb_shifts(graph: Graph) -> int:
    """Take a constant added before a product out of it: (x + c) W + b = x W + (c W + b).

    Position embeddings are added to keys and queries in just that place.

    Returns:
        How many products no longer wait for the addition.
    """
    done = 0
    for node in list(graph.nodes):
        if not is_op(node, "Gemm") or len(node.input) != 3 or attribute(node, "transA", 0):
            continue
        if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
            continue
        view = graph.producer(node.input[0])
        added = graph.producer(view.input[0]) if is_op(view, "Reshape") and view else view
        offset, source = _constant_side(graph, added, "Add")
        weight, bias = graph.value(node.input[1]), graph.value(node.input[2])
        rows, full = graph.shape(node.input[0]), graph.shape(source)
        if offset is None or weight is None or bias is None or rows is None or full is None:
            continue
        if added is None or graph.shape(added.output[0]) != full or full[-1] != rows[-1]:
            continue
        shift = np.broadcast_to(offset, full).reshape(rows).astype(np.float64)
        turned = weight.T if attribute(node, "transB", 0) else weight
        total = graph.constant((shift @ turned + bias).astype(np.float32), f"{node.name}/shift")
        inputs = [graph.reshape(source, rows), node.input[1], total]
        output = graph.add("Gemm", inputs, f"{node.output[0]}/shifted", **attributes(node))
        graph.redirect(node.output[0], output)
        graph.remove([node])
        done += 1
    graph.prune()
    return done


def _constant_side(graph: Graph, node: NodeProto | None, op: str) -> tuple[np.ndarray | None, str]:
    """The constant and the other input of a commutative node."""
    if node is None or not is_op(node, op) or len(node.input) != 2:
        return None, ""
    for i in (0, 1):
        value = graph.value(node.input[i])
        if value is not None:
            return value, str(node.input[1 - i])
    return None, ""


def _into_convolution(
    graph: Graph, node: NodeProto, factor: np.ndarray, shift: np.ndarray, source: str = ""
) -> bool:
    """Replace ``factor * conv(x) + shift`` by one convolution, if nothing else reads conv(x)."""
    source = source or node.input[0]
    conv = graph.producer(source)
    if conv is None or not is_op(conv, "Conv") or graph.only_consumer(source) is None:
        return False
    weight = graph.value(conv.input[1])
    bias = graph.value(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
    if weight is None or (bias is None and len(conv.input) > 2 and conv.input[2]):
        return False
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    moved = shift if bias is None else bias * factor + shift
    inputs = [
        conv.input[0],
        graph.constant(scaled.astype(np.float32), f"{source}/weight"),
        graph.constant(moved.astype(np.float32), f"{source}/bias"),
    ]
    output = graph.add("Conv", inputs, f"{node.output[0]}/folded", **attributes(conv))
    graph.redirect(node.output[0], output)
    graph.remove([conv, node])
    return True


def _compute(
    graph: Graph, node: NodeProto, values: dict[str, np.ndarray]
) -> list[np.ndarray] | None:
    """Run one node by itself; None if this runtime has no such operator."""
    outputs = [name for name in node.output if name]
    alone = helper.make_model(
        helper.make_graph(
            [node],
            "constant",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for name, value in values.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        ),
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=8,
    )
    try:
        (results,) = run_graph(alone.SerializeToString(), outputs, [values])
    except Exception:  # the binding's own classes share no base; the node then stays as it is
        return None
    return [np.asarray(results[name]) for name in outputs]
