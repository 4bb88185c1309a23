"""Every pass proves itself on graphs that this project did not make: same numbers, fewer nodes."""

import numpy as np
import pytest
from onnx_graphs import Writer, assert_same, ops

from mobileinst_deploy.optimize import optimize_graph
from mobileinst_deploy.optimize.folding import (
    absorb_shifts,
    fold_batchnorm,
    fold_constants,
    fold_scales,
)
from mobileinst_deploy.optimize.graph import Graph
from mobileinst_deploy.optimize.rearranging import (
    convolve_before_resizing,
    fuse_hard_sigmoid,
    merge_reshapes,
    merge_transposes,
    remove_idle,
)


def applied(rewrite, model):
    """The model after one pass, and how many places it says that it changed."""
    graph = Graph(model)
    count = rewrite(graph)
    return graph.model(), count


def batchnorm(w, x, channels):
    vectors = [w.weight(channels) for _ in range(3)]
    variance = w.constant(np.linspace(0.5, 2, channels).astype(np.float32))
    return w.node("BatchNormalization", x, *vectors, variance, epsilon=1e-3)


def test_batchnorm_goes_into_the_convolution_before_it():
    w = Writer()
    x = w.input(1, 4, 6, 6)
    y = batchnorm(w, w.conv(x, 4, 8, bias=False), 8)
    model = w.model(w.node("Relu", batchnorm(w, w.conv(y, 8, 8, groups=8), 8)))
    after, count = applied(fold_batchnorm, model)
    assert count == 2
    assert ops(after) == ["Conv", "Conv", "Relu"]
    assert_same(model, after)


def test_batchnorm_stays_where_something_else_reads_the_convolution():
    w = Writer()
    x = w.input(1, 4, 6, 6)
    y = w.conv(x, 4, 8)
    model = w.model(w.node("Add", batchnorm(w, y, 8), y))
    after, count = applied(fold_batchnorm, model)
    assert count == 0
    assert_same(model, after)


@pytest.mark.parametrize("op", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("shape", [(1,), (8, 1, 1), (1, 8, 1, 1)])
def test_scales_and_shifts_per_channel_go_into_the_convolution(op, shape):
    w = Writer()
    x = w.input(1, 4, 6, 6)
    constant = w.constant(np.linspace(1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape))
    model = w.model(w.node(op, w.conv(x, 4, 8), constant))
    after, count = applied(fold_scales, model)
    assert count == 1
    assert ops(after) == ["Conv"]
    assert_same(model, after)


def test_a_constant_that_differs_by_pixel_is_no_scale():
    w = Writer()
    model = w.model(w.node("Mul", w.conv(w.input(1, 4, 6, 6), 4, 8), w.weight(1, 8, 6, 6)))
    after, count = applied(fold_scales, model)
    assert count == 0
    assert_same(model, after)


def test_arithmetic_on_constants_is_done_once():
    w = Writer()
    angles = w.constant(np.linspace(0, 6, 12).astype(np.float32).reshape(3, 4))
    table = w.node("Concat", w.node("Sin", angles), w.node("Cos", angles), axis=1)
    model = w.model(w.node("Add", w.input(3, 8), table))
    after, count = applied(fold_constants, model)
    assert count == 3
    assert ops(after) == ["Add"]
    assert_same(model, after)


def test_random_numbers_and_compact_weights_are_not_folded():
    w = Writer()
    small = w.constant(np.arange(-8, 8, dtype=np.int8).reshape(2, 8))
    wide = w.node("DequantizeLinear", small, w.constant(np.float32(0.1)))
    half = w.node("Cast", w.constant(np.ones((2, 8), np.float16)), to=1)
    model = w.model(w.node("Add", w.node("Add", w.input(2, 8), wide), half))
    after, count = applied(fold_constants, model)
    assert count == 0
    assert ops(after).count("DequantizeLinear") == 1
    assert_same(model, after)


def test_constants_that_would_swell_the_file_stay_computed():
    w = Writer()
    shape = w.constant(np.array([600, 600], np.int64))
    table = w.node("Expand", w.constant(np.float32([[1.5]])), shape)
    model = w.model(w.node("Add", w.input(600, 600), table))
    after, count = applied(fold_constants, model)
    assert count == 0
    assert ops(after) == ["Expand", "Add"]


@pytest.mark.parametrize("spelling", ["div", "mul"])
def test_hard_sigmoid_in_two_spellings(spelling):
    w = Writer()
    c = lambda v: w.constant(np.float32(v))  # noqa: E731
    y = w.node("Clip", w.node("Add", w.input(2, 9), c(3)), c(0), c(6))
    last = ("Div", c(6)) if spelling == "div" else ("Mul", c(1 / 6))
    model = w.model(w.node(last[0], y, last[1]))
    after, count = applied(fuse_hard_sigmoid, model)
    assert count == 1
    assert ops(after) == ["HardSigmoid"]
    assert_same(model, after)


@pytest.mark.parametrize("bounds", [(0.0, 5.0), (-1.0, 6.0)])
def test_what_only_looks_like_hard_sigmoid_stays(bounds):
    w = Writer()
    c = lambda v: w.constant(np.float32(v))  # noqa: E731
    y = w.node("Clip", w.node("Add", w.input(2, 9), c(3)), c(bounds[0]), c(bounds[1]))
    model = w.model(w.node("Div", y, c(6)))
    after, count = applied(fuse_hard_sigmoid, model)
    assert count == 0
    assert_same(model, after)


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


def test_reshapes_in_a_row_become_one():
    w = Writer()
    y = w.node("Reshape", w.input(2, 12), w.constant(np.array([2, 3, 4])))
    model = w.model(w.node("Relu", w.node("Reshape", y, w.constant(np.array([6, -1])))))
    after, count = applied(merge_reshapes, model)
    assert count == 1
    assert ops(after) == ["Reshape", "Relu"]
    assert_same(model, after)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_1x1_convolution_goes_before_an_enlargement(mode):
    w = Writer()
    scales = w.constant(np.float32([1, 1, 2, 3]))
    large = w.node("Resize", w.input(1, 8, 5, 6), "", scales, mode=mode)
    model = w.model(w.node("Relu", w.conv(large, 8, 4, kernel=1)))
    after, count = applied(convolve_before_resizing, model)
    assert count == 1
    assert ops(after) == ["Conv", "Resize", "Relu"]
    assert_same(model, after)


@pytest.mark.parametrize("case", ["reduction", "wide", "3x3", "shared"])
def test_a_convolution_stays_after_a_resize_where_that_is_right(case):
    w = Writer()
    scale = 0.5 if case == "reduction" else 2
    scales = w.constant(np.float32([1, 1, scale, scale]))
    large = w.node("Resize", w.input(1, 8, 6, 6), "", scales, mode="linear")
    outputs = {"wide": 400, "reduction": 8}.get(case, 4)
    y = w.conv(large, 8, outputs, kernel=3 if case == "3x3" else 1)
    model = w.model(y, w.node("Relu", large)) if case == "shared" else w.model(y)
    after, count = applied(convolve_before_resizing, model)
    assert count == 0
    assert_same(model, after)


def test_nodes_that_do_nothing_are_dropped():
    w = Writer()
    y = w.node("Identity", w.node("Dropout", w.input(2, 3)))
    y = w.node("Reshape", w.node("Transpose", y, perm=[0, 1]), w.constant(np.array([2, 3])))
    w.node("Exp", y)
    model = w.model(w.node("Relu", y, output="out"))
    after, count = applied(remove_idle, model)
    assert count == 5
    assert ops(after) == ["Relu"]
    assert_same(model, after)


def test_an_input_that_is_also_an_output_keeps_its_copy():
    w = Writer()
    model = w.model(w.node("Identity", w.input(2, 3), output="out"))
    after, _ = applied(remove_idle, model)
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
    assert {"remove-idle", "fold-batchnorm", "convolve-before-resizing"} <= done
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
    _, records = optimize_graph(foreign_net(), only=frozenset({"fold-batchnorm"}))
    assert [record.name for record in records] == ["fold-batchnorm"]


def test_a_second_run_finds_only_constants_that_the_first_one_left_to_the_runtime():
    once, _ = optimize_graph(foreign_net())
    twice, records = optimize_graph(once)
    assert_same(once, twice, atol=1e-4)
    done = {record.name for record in records if record.rewrites}
    assert done <= {"fold-constants", "merge-reshapes"}


def test_it_is_deterministic():
    first, second = (optimize_graph(foreign_net())[0].SerializeToString() for _ in range(2))
    assert first == second
