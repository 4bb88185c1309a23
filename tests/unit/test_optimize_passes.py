"""Every pass proves itself on graphs that this project did not make: same numbers, fewer nodes."""

import numpy as np
import pytest
from onnx_graphs import Writer, assert_same, ops

from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.optimize import optimize_graph
from mobileinst_deploy.optimize.graph import Graph
from mobileinst_deploy.optimize.pipeline import passes
from mobileinst_deploy.optimize.products import absorb_shifts, merge_transposes
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.onnx_file import load_graph


def applied(rewrite, model):
    """The model after one pass, and how many places it says that it changed."""
    graph = Graph(model)
    count = rewrite(graph)
    return graph.model(), count


def batchnorm(w, x, channels):
    vectors = [w.weight(channels) for _ in range(3)]
    variance = w.constant(np.linspace(0.5, 2, channels).astype(np.float32))
    return w.node("BatchNormalization", x, *vectors, variance, epsilon=1e-3)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_position_embedding_is_taken_out_of_the_product(transposed):
    w = Writer()
    x = w.input(1, 5, 8)
    placed = w.node("Add", x, w.weight(1, 5, 8))
    rows = w.node("Reshape", placed, w.constant(np.array([5, 8])))
    weight = w.weight(6, 8) if transposed else w.weight(8, 6)
    model = w.model(w.node("Gemm", rows, weight, w.weight(6), transB=transposed))
    after, count = applied(absorb_shifts, model)
    assert count == 1
    assert "Add" not in ops(after)
    assert_same(model, after)


def test_a_sum_of_two_inputs_is_no_shift():
    w = Writer()
    x = w.node("Add", w.input(5, 8), w.input(5, 8, name="y"))
    model = w.model(w.node("Gemm", x, w.weight(8, 6), w.weight(6)))
    after, count = applied(absorb_shifts, model)
    assert count == 0
    assert_same(model, after)


def attention(w, x, tokens, heads, dim):
    """Values times weights with the map's layout restored afterwards, as exporters write it."""
    view = w.constant(np.array([1, heads, dim, tokens]))
    values = w.node("Transpose", w.node("Reshape", x, view), perm=[0, 1, 3, 2])
    scores = w.node("Softmax", w.weight(1, heads, tokens, tokens), axis=-1)
    return w.node("Transpose", w.node("MatMul", scores, values), perm=[0, 1, 3, 2])


def test_transpositions_around_a_product_of_attention_vanish():
    w = Writer()
    model = w.model(attention(w, w.input(1, 6, 5), 5, 2, 3))
    after, count = applied(merge_transposes, model)
    assert count == 1
    assert_same(model, after)


def test_transpositions_in_a_row_become_one_or_none():
    w = Writer()
    x = w.input(2, 3, 4)
    back = w.node("Transpose", w.node("Transpose", x, perm=[1, 2, 0]), perm=[2, 0, 1])
    other = w.node("Transpose", w.node("Transpose", x, perm=[1, 2, 0]), perm=[1, 0, 2])
    model = w.model(w.node("Relu", back), w.node("Relu", other))
    after, _ = applied(merge_transposes, model)
    assert ops(after).count("Transpose") == 1
    assert_same(model, after)


def foreign_net():
    """A small classifier with what exporters leave in graphs."""
    w = Writer()
    x = w.input(1, 3, 32, 40)
    x = w.node("Relu", batchnorm(w, w.conv(x, 3, 32, bias=False), 32))
    y = w.node("Relu", batchnorm(w, w.conv(x, 32, 32, bias=False), 32))
    x = w.node("Add", x, w.conv(y, 32, 32))
    x = w.node("Relu", w.conv(w.node("Relu", w.conv(x, 32, 48, kernel=1)), 48, 48, 5, 2, 48))
    large = w.node("Resize", x, "", w.constant(np.float32([1, 1, 2, 2])), mode="linear")
    x = w.node("Identity", w.conv(large, 48, 8, kernel=1))
    return w.model(w.node("Sigmoid", x, output="scores"))


def test_all_passes_together_on_a_foreign_net():
    model = foreign_net()
    after, records = optimize_graph(model)
    done = {record.name for record in records if record.rewrites}
    assert {"split-depthwise", "store-by-pixels"} <= done
    assert_same(model, after, atol=1e-4)


@pytest.mark.parametrize("opset", [13, 15, 17, 18, 19])
def test_the_operator_set_stays(opset):
    model = foreign_net()
    model.opset_import[0].version = opset
    after, _ = optimize_graph(model)
    assert after.opset_import[0].version == opset
    assert_same(model, after, atol=1e-4)


def test_only_the_passes_asked_for_run():
    _, records = optimize_graph(foreign_net(), only=frozenset({"split-depthwise"}))
    assert [record.name for record in records] == ["split-depthwise"]


def test_a_second_run_finds_nothing_left_to_do():
    once, _ = optimize_graph(foreign_net())
    twice, records = optimize_graph(once)
    assert_same(once, twice, atol=1e-4)
    assert not any(record.rewrites for record in records)


def test_it_is_deterministic():
    first, second = (optimize_graph(foreign_net())[0].SerializeToString() for _ in range(2))
    assert first == second


def test_every_pass_changes_something_on_a_network_of_the_zoo(tmp_path):
    """A pass that changes nothing on what we export has no place here."""
    pair = export_model(load_model("mobileinst-demo", size=(128, 128)), tmp_path / "pair")
    _, records = optimize_graph(load_graph(pair.graphs["frame"].onnx))
    assert [record.name for record in records if record.rewrites] == list(passes())
