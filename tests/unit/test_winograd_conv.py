"""A convolution of rows by Winograd is the convolution, whatever its size and order of pixels."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from onnx_graphs import Writer, assert_same, ops, run

from mobileinst_deploy.optimize.graph import Graph
from mobileinst_deploy.optimize.pixels import PixelWriter
from mobileinst_deploy.optimize.winograd_conv import (
    Problem,
    plan,
    predict,
    predict_direct,
    write,
)

ATOL = {2: 1e-5, 3: 1e-5, 4: 2e-5, 5: 5e-5, 6: 5e-5, 8: 5e-4}


def by_hand(channels, outputs, size, pads=(1, 1, 1, 1), convolutions=1):
    """Convolutions in a row, and the same graph with each of them by Winograd."""
    graph = Writer()
    x = graph.input(1, channels, *size)
    weights = []
    for _ in range(convolutions):
        weight, bias = graph.weight(outputs, channels, 3, 3), graph.weight(outputs)
        x = graph.node("Conv", x, weight, bias, kernel_shape=[3, 3], pads=list(pads))
        weights.append((weight, bias))
        channels = outputs
    return graph.model(x), weights


def by_winograd(model, weights, tile, pads):
    graph = Graph(model)
    writer = PixelWriter(graph)
    old = [node for node in graph.nodes if node.op_type == "Conv"]
    rows = writer.rows("x")
    for node, (weight, bias) in zip(old, weights, strict=True):
        problem = Problem(rows.channels, graph.value(bias).size, rows.size, pads)
        rows = write(
            writer, rows, graph.value(weight), graph.value(bias), problem, tile, node.output[0]
        )
    graph.redirect(old[-1].output[0], writer.picture(rows, "y"))
    graph.remove(old)
    return graph.model()


@pytest.mark.parametrize("tile", [(2, 2), (4, 4), (6, 6), (8, 8), (6, 5), (3, 8)])
@pytest.mark.parametrize("size", [(12, 20), (7, 11), (1, 1), (5, 33)])
def test_any_size_with_any_tile(tile, size):
    model, weights = by_hand(5, 7, size)
    rewritten = by_winograd(model, weights, tile, (1, 1, 1, 1))
    assert_same(model, rewritten, atol=ATOL[max(tile)])


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 0, 1), (2, 2, 2, 2), (0, 2, 1, 0)])
def test_any_padding(pads):
    model, weights = by_hand(4, 3, (9, 10), pads)
    assert_same(model, by_winograd(model, weights, (4, 4), pads), atol=ATOL[4])


def test_one_after_another_gathers_from_the_tiles_of_the_one_before():
    model, weights = by_hand(8, 8, (13, 17), convolutions=3)
    rewritten = by_winograd(model, weights, (4, 6), (1, 1, 1, 1))
    assert_same(model, rewritten, atol=1e-4)
    assert ops(rewritten).count("Transpose") == 2, "in at the beginning, out at the end"


def test_the_runtime_makes_the_filters_when_it_loads_the_graph():
    """The file holds nine numbers per filter; the transformed ones are folded, not recomputed."""
    model, weights = by_hand(16, 16, (12, 12))
    rewritten = by_winograd(model, weights, (6, 6), (1, 1, 1, 1))
    assert len(rewritten.SerializeToString()) < len(model.SerializeToString()) + 40_000
    feeds = {"x": np.ones((1, 16, 12, 12), np.float32)}
    same = run(rewritten, optimize=True, **feeds)[0]
    np.testing.assert_allclose(same, run(rewritten, **feeds)[0], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 24), st.integers(1, 24), st.sampled_from([2, 4, 6]), st.sampled_from([2, 5, 6])
)
def test_wild_sizes(height, width, down, across):
    model, weights = by_hand(3, 4, (height, width))
    assert_same(model, by_winograd(model, weights, (down, across), (1,) * 4), atol=1e-4, seeds=(1,))


def test_the_plan_is_the_cheapest_tile_that_is_allowed():
    problem = Problem(256, 256, (48, 80))
    best = plan(problem, 8)
    assert best.tile == (8, 8)
    assert best.instructions == min(predict(problem, (h, w)) for h in (6, 8) for w in (5, 6, 8))
    assert max(plan(problem, 4).tile) <= 4


# Counted with `mobileinst bench --count` on ONNX Runtime 1.32, one convolution in a full model:
# the product, and all nodes of the convolution together, in millions.
COUNTED = {
    (256, (48, 80), (8, 8)): 154.0,
    (256, (48, 80), (6, 5)): 176.0,
}
DIRECT = {(256, (48, 80)): 732.9, (256, (24, 40)): 184.6, (256, (12, 20)): 46.6,
          (64, (48, 80)): 50.6, (128, (24, 40)): 48.0, (16, (192, 320)): 66.3}  # fmt: skip


@pytest.mark.parametrize(("channels", "size", "tile"), COUNTED)
def test_predictions_are_near_what_was_counted(channels, size, tile):
    predicted = predict(Problem(channels, channels, size), tile) / 1e6
    assert predicted == pytest.approx(COUNTED[channels, size, tile], rel=0.05)


@pytest.mark.parametrize(("channels", "size"), DIRECT)
def test_predictions_of_direct_convolutions_are_near_what_was_counted(channels, size):
    predicted = predict_direct(Problem(channels, channels, size)) / 1e6
    assert predicted == pytest.approx(DIRECT[channels, size], rel=0.05)


def test_narrow_convolutions_are_not_worth_it():
    narrow = Problem(4, 4, (48, 80))
    assert plan(narrow, 8).instructions > predict_direct(narrow)
