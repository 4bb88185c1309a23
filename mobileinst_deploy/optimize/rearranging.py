"""Nodes that only move numbers about: removed, merged, or moved to where there are fewer."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from mobileinst_deploy.optimize import cost
from mobileinst_deploy.optimize.graph import Graph, attribute, attributes, is_op


def remove_idle(graph: Graph) -> int:
    """Drop nodes that change nothing or that no output needs; return their number."""
    done = 0
    for node in list(graph.nodes):
        if not _is_idle(graph, node) or any(name in graph.pinned for name in node.output[1:]):
            continue
        if any(graph.consumers(name) for name in node.output[1:] if name):
            continue
        if node.output[0] in graph.pinned and graph.producer(node.input[0]) is None:
            continue  # an input or constant that is an output needs the node to carry its name
        graph.redirect(node.output[0], node.input[0])
        graph.remove([node])
        done += 1
    return done + graph.prune()


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


def merge_reshapes(graph: Graph) -> int:
    """Let a Reshape of a Reshape reshape the original; return how many became needless."""
    before = graph.op_counts()["Reshape"]
    for node in graph.sorted_nodes():
        maker = graph.producer(node.input[0]) if is_op(node, "Reshape") else None
        shape = graph.shape(node.output[0])
        if maker is None or shape is None or not is_op(maker, "Reshape"):
            continue
        view = graph.reshape(maker.input[0], shape)
        graph.redirect(node.output[0], view)
        graph.remove([node])
    graph.prune()
    return before - graph.op_counts()["Reshape"]


def convolve_before_resizing(graph: Graph) -> int:
    """Do a 1x1 convolution before a resize where that is cheaper, as it is before enlargements.

    Bilinear and nearest-neighbour weights add up to one, so that both orders agree, bias included.

    Returns:
        How many pairs changed places.
    """
    done = 0
    for conv in list(graph.nodes):
        resize = graph.producer(conv.input[0]) if is_op(conv, "Conv") else None
        if resize is None or not is_op(resize, "Resize"):
            continue
        weight, small = graph.value(conv.input[1]), graph.shape(resize.input[0])
        large = graph.shape(resize.output[0])
        fits = (
            weight is not None
            and weight.shape[2:] == (1, 1)
            and attribute(conv, "group", 1) == 1
            and set(attribute(conv, "strides", [1])) == {1}
            and set(attribute(conv, "pads", [0])) == {0}
            and graph.only_consumer(resize.output[0]) is not None
            and small is not None
            and large is not None
            and len(small) == 4
            and small[:2] == large[:2]
            and attribute(resize, "mode", "nearest") in ("linear", "nearest")
            and attribute(resize, "coordinate_transformation_mode", "") != "tf_crop_and_resize"
            and not attribute(resize, "axes", [])
            and len(resize.input) > 2
            and bool(resize.input[2])
        )
        if not fits or weight is None or small is None or large is None:
            continue
        outputs, channels = weight.shape[:2]
        few, many = small[2] * small[3], large[2] * large[3]
        each = cost.RESIZE_CHANNELS_FIRST * many
        now = each * channels + cost.gemm(outputs, channels, many)
        then = each * outputs + cost.gemm(outputs, channels, few)
        scales = graph.value(resize.input[2])
        if then >= now or scales is None or scales.size != 4:
            continue
        inputs = [resize.input[0], *conv.input[1:]]
        first = graph.add("Conv", inputs, f"{conv.output[0]}/small", **attributes(conv))
        inputs = [first, "", resize.input[2]]
        last = graph.add("Resize", inputs, f"{conv.output[0]}/enlarged", **attributes(resize))
        graph.redirect(conv.output[0], last)
        graph.remove([conv, resize])
        done += 1
    graph.prune()
    return done


def fuse_hard_sigmoid(graph: Graph) -> int:
    """Write clip(x + 3, 0, 6) / 6, in any of its spellings, as one HardSigmoid.

    Returns:
        How many were found.
    """
    done = 0
    for node in list(graph.nodes):
        factor = _constant_factor(graph, node)
        clip = graph.producer(node.input[0]) if factor is not None else None
        if factor is None or clip is None or not is_op(clip, "Clip") or len(clip.input) != 3:
            continue
        low, high = graph.value(clip.input[1]), graph.value(clip.input[2])
        shift = graph.producer(clip.input[0])
        if low is None or high is None or not is_op(shift, "Add") or shift is None:
            continue
        offset = graph.value(shift.input[1])
        alone = all(graph.only_consumer(n.output[0]) is not None for n in (clip, shift))
        if offset is None or offset.size != 1 or not alone or float(low.max()) != 0.0:
            continue
        if not np.isclose(float(high.max()) * factor, 1.0, rtol=1e-6):
            continue
        output = graph.add(
            "HardSigmoid",
            [shift.input[0]],
            f"{node.output[0]}/hard_sigmoid",
            alpha=factor,
            beta=float(offset.reshape(())) * factor,
        )
        graph.redirect(node.output[0], output)
        graph.remove([node, clip, shift])
        done += 1
    graph.prune()
    return done


def _is_idle(graph: Graph, node: NodeProto) -> bool:
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Dropout"):
        training = graph.value(node.input[2]) if len(node.input) > 2 else np.array(False)
        return training is not None and not bool(training.any())
    shape, result = graph.shape(node.input[0]) if node.input else None, graph.shape(node.output[0])
    if is_op(node, "Reshape", "Expand", "Squeeze", "Unsqueeze", "Flatten"):
        return shape is not None and shape == result
    if is_op(node, "Concat"):
        return len(node.input) == 1
    if is_op(node, "Transpose"):
        order = attribute(node, "perm", [])
        return bool(order) and list(order) == sorted(order)
    return False


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


def _constant_factor(graph: Graph, node: NodeProto) -> float | None:
    """What a node multiplies its first input by, if that is one number."""
    if not is_op(node, "Mul", "Div") or len(node.input) != 2:
        return None
    value = graph.value(node.input[1])
    if value is None or value.size != 1 or float(value.reshape(())) == 0.0:
        return None
    number = float(value.reshape(()))
    return number if node.op_type == "Mul" else 1.0 / number
