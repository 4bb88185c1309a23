"""Depthwise convolutions on phases give the same numbers, and are used only where they pay."""

import pytest
from onnx_graphs import Writer, assert_same, ops

from mobileinst_deploy.optimize import depthwise
from mobileinst_deploy.optimize.depthwise import split_depthwise
from mobileinst_deploy.optimize.graph import Graph


def rewritten(model):
    graph = Graph(model)
    count = split_depthwise(graph)
    return graph.model(), count


def alone(kernel, stride, size=(24, 40), channels=8, bias=True, pad=None):
    w = Writer()
    x = w.input(1, channels, *size)
    return w.model(w.conv(x, channels, channels, kernel, stride, channels, bias, pad))


TENSORFLOW = [0, 0, 1, 1]


def inverted_residual(kernel, stride, few=4, many=24, activation="Relu", size=(24, 40), pad=None):
    w = Writer()
    x = w.input(1, few, *size)
    y = w.node(activation, w.conv(x, few, many, kernel=1))
    y = w.node(activation, w.conv(y, many, many, kernel, stride, many, pad=pad))
    return w.model(w.conv(y, many, few, kernel=1))


PAYING = [(3, 2), (5, 2), (5, 1)]


@pytest.mark.parametrize(("kernel", "stride"), PAYING)
@pytest.mark.parametrize("size", [(24, 40), (8, 6), (16, 2)])
def test_the_same_numbers_in_an_inverted_residual(kernel, stride, size, monkeypatch):
    """Also where it would not pay: as if everything else were dearer."""
    monkeypatch.setattr(depthwise, "_price_as_it_stands", lambda found: float("inf"))
    model = inverted_residual(kernel, stride, size=size)
    after, count = rewritten(model)
    assert count == 1
    assert_same(model, after)


@pytest.mark.parametrize("way", ["summed", "grouped"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_both_ways_to_stride_2(kernel, way, monkeypatch):
    prices = {way: 0.0}
    monkeypatch.setattr(depthwise, "_price", lambda found, w: prices.get(w, 1e18))
    model = inverted_residual(kernel, 2)
    after, count = rewritten(model)
    assert count == 1
    assert (ops(after).count("Conv") > 4) == (way == "summed")
    assert_same(model, after)


@pytest.mark.parametrize("way", ["summed", "grouped"])
@pytest.mark.parametrize("size", [(24, 40), (8, 6), (16, 2)])
def test_padding_after_alone_as_tensorflow_pads(way, size, monkeypatch):
    monkeypatch.setattr(depthwise, "_price_as_it_stands", lambda found: float("inf"))
    monkeypatch.setattr(depthwise, "_price", lambda found, w: float(w != way))
    model = inverted_residual(3, 2, size=size, pad=TENSORFLOW)
    after, count = rewritten(model)
    assert count == 1
    assert_same(model, after)


@pytest.mark.parametrize(("kernel", "stride"), PAYING)
def test_phases_are_split_where_channels_are_few(kernel, stride):
    model = inverted_residual(kernel, stride, size=(96, 160))
    after, count = rewritten(model)
    assert count == 1
    split = next(node for node in after.graph.node if node.op_type == "SpaceToDepth")
    assert split.input[0] == "x"


def test_phases_are_put_together_where_channels_are_few():
    after, _ = rewritten(inverted_residual(5, 1))
    assert ops(after)[-1] == "ConvTranspose"


def test_small_maps_are_not_worth_the_rearranging():
    assert rewritten(inverted_residual(3, 2, size=(8, 6)))[1] == 0


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_alone_between_inputs_and_outputs(stride, bias):
    model = alone(5, stride, (48, 80), bias=bias)
    after, count = rewritten(model)
    assert count == 1
    assert_same(model, after)


@pytest.mark.parametrize("activation", ["Sigmoid", "HardSwish"])
def test_activations_that_do_not_keep_zero(activation):
    """The border is zero after the activation, not before it."""
    model = inverted_residual(5, 2, activation=activation)
    after, count = rewritten(model)
    assert count == 1
    assert_same(model, after)


def test_a_tensor_that_something_else_reads_is_not_rearranged():
    w = Writer()
    x = w.input(1, 4, 24, 40)
    shared = w.node("Relu", w.conv(x, 4, 24, kernel=1))
    model = w.model(w.conv(shared, 24, 24, 5, 2, 24), w.node("Neg", shared))
    after, count = rewritten(model)
    assert count == 1
    split = next(node for node in after.graph.node if node.op_type == "SpaceToDepth")
    assert split.input[0] == shared
    assert_same(model, after)


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "pad"),
    [
        (3, 1, (24, 40), None),  # has a kernel of its own
        (7, 2, (24, 40), None),
        (5, 2, (25, 40), None),
        (5, 2, (24, 41), None),
        (5, 2, (24, 40), 1),
    ],
)
def test_other_shapes_are_left_alone(kernel, stride, size, pad):
    model = alone(kernel, stride, size, pad=pad)
    after, count = rewritten(model)
    assert count == 0
    assert ops(after) == ["Conv"]


def test_dense_convolutions_are_left_alone():
    w = Writer()
    x = w.input(1, 8, 24, 40)
    assert rewritten(w.model(w.conv(x, 8, 8, 5, 2)))[1] == 0
