"""Editing a graph keeps its names and its meaning."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_graphs import Writer, assert_same, feeds_of, ops, run

from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.optimize.graph import Graph


def chain():
    w = Writer()
    x = w.input(1, 4, 6, 6)
    y = w.node("Relu", w.conv(x, 4, 4))
    return w.model(w.node("Neg", y, output="out"))


def test_reading_and_writing_back_changes_nothing():
    model = chain()
    assert_same(model, Graph(model).model())


def test_the_given_model_stays_as_it_is():
    model = chain()
    before = model.SerializeToString()
    graph = Graph(model)
    graph.redirect(graph.nodes[1].output[0], graph.nodes[0].output[0])
    graph.model()
    assert model.SerializeToString() == before


def test_who_makes_and_who_reads_a_tensor():
    graph = Graph(chain())
    conv, relu, neg = graph.nodes
    assert graph.producer(conv.output[0]) is conv
    assert graph.producer("x") is None
    assert graph.consumers(conv.output[0]) == [relu]
    assert graph.only_consumer(relu.output[0]) is neg
    assert graph.only_consumer("out") is None, "an output is read from outside"
    assert graph.shape(conv.output[0]) == (1, 4, 6, 6)


def test_an_output_keeps_its_name_when_another_node_makes_it():
    model = chain()
    graph = Graph(model)
    old = graph.nodes[-1]
    new = graph.add("Mul", [old.input[0], graph.constant(np.float32([-1]), "minus")], "new")
    graph.redirect("out", new)
    graph.remove([old])
    assert_same(model, graph.model())


def test_an_input_that_becomes_an_output_is_copied():
    w = Writer()
    x = w.input(2, 3)
    model = w.model(w.node("Identity", x, output="out"))
    graph = Graph(model)
    graph.redirect("out", "x")
    graph.remove(graph.nodes[:1])
    assert_same(model, graph.model())


def test_equal_constants_are_stored_once():
    graph = Graph(chain())
    first = graph.constant(np.arange(3), "a")
    assert graph.constant(np.arange(3), "b") == first
    assert graph.constant(np.arange(3).astype(np.float32), "c") != first
    assert graph.constant(np.arange(3)[None], "d") != first


def test_what_no_output_needs_is_dropped_with_its_constants():
    w = Writer()
    x = w.input(1, 4, 6, 6)
    w.conv(x, 4, 4)
    model = w.model(w.node("Relu", x, output="out"))
    after = Graph(model).model()
    assert ops(after) == ["Relu"]
    assert not after.graph.initializer
    assert_same(model, after)


def test_names_never_collide():
    graph = Graph(chain())
    names = {graph.add("Relu", ["x"], "same") for _ in range(5)}
    assert len(names) == 5


def test_nodes_are_sorted_whatever_order_they_were_added_in():
    graph = Graph(chain())
    relu = graph.nodes[1]
    early = graph.add("Abs", [relu.input[0]], "early")
    graph.redirect(relu.output[0], early)
    graph.remove([relu])
    onnx.checker.check_model(graph.model(), full_check=True)


def test_a_subgraphs_captured_tensor_is_pinned():
    inner = helper.make_graph(
        [helper.make_node("Add", ["hidden", "hidden"], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [2])],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["hidden"], ["inner2"])],
        "else",
        [],
        [helper.make_tensor_value_info("inner2", onnx.TensorProto.FLOAT, [2])],
    )
    w = Writer()
    x = w.input(2)
    w.node("Relu", x, output="hidden")
    w.nodes.append(
        helper.make_node(
            "If", [w.constant(np.array(True))], ["out"], then_branch=inner, else_branch=other
        )
    )
    model = w.model("out")
    graph = Graph(model)
    assert "hidden" in graph.pinned
    assert graph.only_consumer("hidden") is None
    feeds = feeds_of(model)
    np.testing.assert_array_equal(run(graph.model(), **feeds)[0], run(model, **feeds)[0])


def test_old_operator_sets_are_refused_with_the_next_step():
    w = Writer(opset=11)
    model = w.model(w.node("Relu", w.input(2)))
    with pytest.raises(BundleError, match="operator set 11"):
        Graph(model)


def test_contradicting_shapes_are_refused():
    w = Writer()
    model = w.model(w.node("Add", w.input(2, 3), w.weight(2, 3)))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(BundleError, match="shapes"):
        Graph(model)
