"""Products rearranged: what is added or transposed beside them is done once, or not at all."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from mobileinst_deploy.optimize.graph import Graph, attribute, attributes, is_op


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


def merge_transposes(graph: Graph) -> int:
    """Merge transpositions in a row, and turn products round whose result is transposed.

    (A B)^T = B^T A^T: where B is a transposition itself, as the values of an attention are, both
    vanish.

    Returns:
        How many transpositions were taken out.
    """
    before = graph.op_counts()["Transpose"]
    for node in list(graph.nodes):
        _turn_product(graph, node)
    for node in graph.sorted_nodes():
        _merge_with_previous(graph, node)
    graph.prune()
    return before - graph.op_counts()["Transpose"]


def _constant_side(graph: Graph, node: NodeProto | None, op: str) -> tuple[np.ndarray | None, str]:
    """The constant and the other input of a commutative node."""
    if node is None or not is_op(node, op) or len(node.input) != 2:
        return None, ""
    for i in (0, 1):
        value = graph.value(node.input[i])
        if value is not None:
            return value, str(node.input[1 - i])
    return None, ""


def _merge_with_previous(graph: Graph, node: NodeProto) -> None:
    maker = graph.producer(node.input[0]) if is_op(node, "Transpose") else None
    if maker is None or not is_op(maker, "Transpose"):
        return
    first, second = attribute(maker, "perm", []), attribute(node, "perm", [])
    if len(first) != len(second) or not first:
        return
    order = [first[i] for i in second]
    source = maker.input[0]
    if order != sorted(order):
        source = graph.add("Transpose", [source], f"{node.output[0]}/merged", perm=order)
    graph.redirect(node.output[0], source)
    graph.remove([node])


def _turn_product(graph: Graph, node: NodeProto) -> None:
    """Transpose(MatMul(A, Transpose(B))) becomes MatMul(B, Transpose(A))."""
    order = attribute(node, "perm", []) if is_op(node, "Transpose") else []
    swap = [*range(len(order) - 2), len(order) - 1, len(order) - 2]
    if len(order) < 2 or list(order) != swap:
        return
    product = graph.producer(node.input[0])
    if product is None or not is_op(product, "MatMul"):
        return
    right = graph.producer(product.input[1])
    same_rank = all(len(graph.shape(name) or ()) == len(order) for name in product.input)
    if right is None or not is_op(right, "Transpose") or attribute(right, "perm", []) != order:
        return
    if not same_rank or graph.only_consumer(product.output[0]) is None:
        return
    left = graph.add("Transpose", [product.input[0]], f"{product.input[0]}/turned", perm=swap)
    turned = graph.add("MatMul", [right.input[0], left], f"{node.output[0]}/turned")
    graph.redirect(node.output[0], turned)
    graph.remove([node, product])
