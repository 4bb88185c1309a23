"""Maps are stored pixel by pixel exactly where that is cheaper, and nothing else changes."""

import itertools

import numpy as np
import pytest
from onnx_graphs import Writer, assert_same, ops

from mobileinst_deploy.optimize import cost, layout
from mobileinst_deploy.optimize.graph import Graph
from mobileinst_deploy.optimize.layout import _Cut, store_by_pixels
from mobileinst_deploy.optimize.pixel_ops import operator

SIZE = (12, 16)


def rewritten(model, largest_tile=6):
    graph = Graph(model)
    count = store_by_pixels(graph, largest_tile)
    return graph.model(), count


def between_convolutions(middle, channels=64, size=SIZE, opset=17):
    """Two wide convolutions with something between them, so that rows reach it on both sides."""
    w = Writer(opset=opset)
    x = w.conv(w.input(1, channels, *size), channels, channels)
    y, outputs = middle(w, x, channels)
    return w.model(w.conv(y, outputs, 64))


def scaled(op):
    def middle(w, x, channels):
        return w.node(op, x, w.weight(channels, 1, 1)), channels

    return middle


def resized(mode, scale, **attributes):
    def middle(w, x, channels):
        scales = w.constant(np.float32([1, 1, scale, scale]))
        return w.node("Resize", x, "", scales, mode=mode, **attributes), channels

    return middle


def resized_to(height, width):
    def middle(w, x, channels):
        sizes = w.constant(np.array([1, channels, height, width]))
        return w.node("Resize", x, "", "", sizes, mode="linear"), channels

    return middle


def pooled(op, **attributes):
    def middle(w, x, channels):
        window = {"kernel_shape": [2, 4], "strides": [2, 4]}
        return w.node(op, x, **window, **attributes), channels

    return middle


def joined(w, x, channels):
    return w.node("Concat", x, w.node("Relu", x), axis=1), 2 * channels


def residual(w, x, channels):
    return w.node("Add", x, w.conv(w.node("Relu", x), channels, channels)), channels


def clipped(w, x, channels):
    return w.node("Clip", x, w.constant(np.float32(0)), w.constant(np.float32(6))), channels


def projected(w, x, channels):
    return w.conv(x, channels, 24, kernel=1), 24


def gated(w, x, channels):
    gate = w.node("HardSigmoid", w.conv(x, channels, channels, kernel=1))
    return w.node("Mul", x, gate), channels


MIDDLES = {
    "relu": lambda w, x, c: (w.node("Relu", x), c),
    "sigmoid": lambda w, x, c: (w.node("Sigmoid", x), c),
    "leaky relu": lambda w, x, c: (w.node("LeakyRelu", x, alpha=0.1), c),
    "clip": clipped,
    "scale": scaled("Mul"),
    "shift": scaled("Add"),
    "1x1": projected,
    "gate": gated,
    "residual": residual,
    "concat": joined,
    "enlarged": resized("linear", 2),
    "reduced": resized("linear", 0.5),
    "aligned corners": resized("linear", 2, coordinate_transformation_mode="align_corners"),
    "to a size": resized_to(18, 20),
    "max pool": pooled("MaxPool"),
    "average pool": pooled("AveragePool"),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_everything_that_can_work_on_rows_does_so_between_convolutions(name):
    model = between_convolutions(MIDDLES[name])
    after, count = rewritten(model)
    assert_same(model, after, atol=2e-4)
    assert count == len(model.graph.node)
    assert ops(after).count("Transpose") == 2, "nothing goes back and forth"


@pytest.mark.parametrize("name", ["max pool", "average pool", "enlarged"])
@pytest.mark.parametrize("opset", [13, 18])
def test_operators_whose_form_depends_on_the_operator_set(name, opset):
    model = between_convolutions(MIDDLES[name], opset=opset)
    after, _ = rewritten(model)
    assert_same(model, after, atol=2e-4)


UNABLE = {
    "nearest": resized("nearest", 2),
    "overlapping pool": lambda w, x, c: (
        w.node("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        c,
    ),
    "padded pool": pooled("MaxPool", pads=[0, 0, 0, 0], ceil_mode=0, dilations=[2, 1]),
    "depthwise": lambda w, x, c: (w.conv(x, c, c, groups=c), c),
    "stride 2": lambda w, x, c: (w.conv(x, c, c, stride=2), c),
    "a different number per pixel": lambda w, x, c: (w.node("Mul", x, w.weight(1, c, *SIZE)), c),
    "softmax": lambda w, x, c: (w.node("Softmax", x, axis=1), c),
}


@pytest.mark.parametrize("name", UNABLE)
def test_what_cannot_work_on_rows_is_left_alone(name):
    model = between_convolutions(UNABLE[name])
    node = model.graph.node[1]
    assert operator(Graph(model), node, 6) is None
    after, count = rewritten(model)
    assert_same(model, after, atol=2e-4)
    assert count == 2, "the convolutions around it"
    assert node.op_type in ops(after)


def test_a_free_axis_is_left_alone():
    w = Writer()
    x = w.input(1, 64, "h", 16)
    model = w.model(w.conv(x, 64, 64))
    assert rewritten(model)[1] == 0


def test_narrow_nets_are_left_alone():
    w = Writer()
    x = w.node("Relu", w.conv(w.input(1, 3, 32, 32), 3, 4))
    model = w.model(w.conv(x, 4, 4))
    after, count = rewritten(model)
    assert count == 0
    assert_same(model, after)


def test_maps_that_are_outputs_keep_their_layout_and_name():
    w = Writer()
    first = w.conv(w.input(1, 64, *SIZE), 64, 64)
    second = w.conv(w.node("Relu", first), 64, 64)
    model = w.model(first, second)
    after, count = rewritten(model)
    assert count == 3
    assert_same(model, after, atol=2e-4)


def test_a_convolution_read_by_two_others_is_transposed_once():
    w = Writer()
    x = w.conv(w.input(1, 64, *SIZE), 64, 64)
    model = w.model(w.node("Softmax", x, axis=1), w.node("Softmax", x, axis=2))
    after, _ = rewritten(model)
    assert ops(after).count("Transpose") == 2
    assert_same(model, after, atol=2e-4)


def test_larger_tiles_are_taken_only_where_they_are_allowed():
    model = between_convolutions(MIDDLES["relu"])
    for limit in (2, 4, 8):
        graph = Graph(model)
        store_by_pixels(graph, limit)
        kernels = [graph.value(n.input[1]).shape[0] for n in graph.nodes if n.op_type == "Conv"]
        assert max(kernels) <= limit


def brute_force(prices, edges):
    """The cheapest labelling of a few nodes, by trying them all."""
    best = None
    for labels in itertools.product((False, True), repeat=len(prices)):
        total = sum(price[rows] for rows, price in zip(labels, prices, strict=True))
        side = lambda n, labels=labels: n != _Cut.CHANNELS and labels[n]  # noqa: E731
        for maker, readers, price in edges:
            total += price * any(side(r) and not side(maker) for r in readers)
            total += price * any(side(maker) and not side(r) for r in readers)
        if best is None or total < best:
            best = total
    return best


@pytest.mark.parametrize("seed", range(25))
def test_the_cut_is_the_cheapest_choice_of_all(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 7))
    prices = [tuple(random.integers(1, 60, 2) * 1000.0) for _ in range(count)]
    edges = [(_Cut.CHANNELS, [0], 9000.0)]
    for maker in range(count - 1):
        later = random.permutation(np.arange(maker + 1, count))[: int(random.integers(1, 3))]
        edges.append((maker, [int(r) for r in later], float(random.integers(1, 30)) * 1000))
    edges.append((count - 1, [_Cut.CHANNELS], 7000.0))
    cut = _Cut()
    for node, (by_channels, by_pixels) in enumerate(prices):
        cut.label(node, by_channels, by_pixels)
    for maker, readers, price in edges:
        cut.to_rows(maker, [r for r in readers if r != _Cut.CHANNELS], price)
        cut.to_channels(maker, readers, price)
    chosen = cut.rows()
    labels = [node in chosen for node in range(count)]
    total = sum(p[rows] for rows, p in zip(labels, prices, strict=True))
    side = lambda n: n != _Cut.CHANNELS and labels[n]  # noqa: E731
    for maker, readers, price in edges:
        total += price * any(side(r) and not side(maker) for r in readers)
        total += price * any(side(maker) and not side(r) for r in readers)
    assert total == brute_force(prices, edges)


def test_a_costly_transposition_keeps_maps_where_they_are(monkeypatch):
    model = between_convolutions(MIDDLES["relu"])
    assert rewritten(model)[1] == 3
    monkeypatch.setattr(layout.cost, "TRANSPOSE", 1e6)
    assert rewritten(model)[1] == 0
    assert cost.TRANSPOSE == 1e6
