"""ONNX files are read with suspicion and described truthfully."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from onnx import TensorProto, helper, numpy_helper

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.pair.onnx_file import (
    count_graph_macs,
    get_metadata,
    load_graph,
    opset_of,
    other_numbers,
    set_metadata,
    summarise,
    tensor_specs,
)


def graph_of(nodes, shapes, weights=(), outputs=("y",), opset=17) -> onnx.ModelProto:
    """A graph from nodes; ``shapes`` gives its inputs'."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_empty_tensor_value_info(n) for n in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no graph"),
        (b"not a graph at all", "is not an ONNX file, or was cut off"),
        (b"\x08\x09", "holds no graph"),
        (bytes(1000), "is not an ONNX file, or was cut off"),
    ],
)
def test_what_is_no_graph_is_refused(tmp_path, content, said):
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=said):
        load_graph(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match="No such file"):
        load_graph(tmp_path / "none.onnx")
    with pytest.raises(BundleError, match="Is a directory"):
        load_graph(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_graph_is_refused(exported: ExportBundle, tmp_path, share):
    data = exported.graphs["frame"].path.read_bytes()
    path = tmp_path / "graph.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BundleError):
        load_graph(path)


def test_a_graph_that_contradicts_itself_is_refused(tmp_path):
    path = tmp_path / "graph.onnx"
    onnx.save(graph_of([helper.make_node("Relu", ["nowhere"], ["y"])], {"x": [1]}), path)
    with pytest.raises(BundleError, match="is not a valid graph"):
        load_graph(path)


def test_weights_in_another_file_are_refused(tmp_path):
    path = tmp_path / "graph.onnx"
    graph = graph_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [9]}, [("w", weight(9))])
    onnx.save(graph, path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(BundleError, match="keeps its weights in another file"):
        load_graph(path)


SMALL = graph_of(
    [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ],
    {"x": [1, 3, 8, 8]},
    [("w", weight(4, 3, 3, 3))],
).SerializeToString()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(places=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damaged_graph_does_worse_than_a_sentence(tmp_path, places):
    data = bytearray(SMALL)
    for place, value in places:
        data[place % len(data)] = value
    path = tmp_path / "graph.onnx"
    path.write_bytes(data)
    with suppress(BundleError):
        summarise(path)


def test_metadata_is_set_beside_that_of_others():
    graph = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]})
    graph.metadata_props.add(key="author", value="someone")
    set_metadata(graph, {"role": "frame", "pair_id": "1"})
    set_metadata(graph, {"pair_id": "2"})
    assert get_metadata(graph) == {"role": "frame", "pair_id": "2"}
    assert "author" in {p.key for p in graph.metadata_props}


def test_signatures_name_free_axes_and_dtypes_and_leave_weights_out():
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n", 4]),
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]),
    ]
    specs = tensor_specs(values, frozenset({"w"}))
    assert [(t.name, t.dtype, t.shape) for t in specs] == [
        ("x", "float32", (1, "n", 4)),
        ("i", "int64", ()),
    ]


@pytest.mark.parametrize(
    ("nodes", "weights", "found"),
    [
        ([helper.make_node("Add", ["x", "w"], ["y"])], [("w", weight(1))], {}),
        (
            [helper.make_node("Add", ["x", "w"], ["y"])],
            [("w", weight(1).astype(np.float16))],
            {"w": "FLOAT16"},
        ),
        (
            [helper.make_node("Add", ["x", "w"], ["y"])],
            [("w", weight(1).astype(np.float64))],
            {"w": "DOUBLE"},
        ),
        (
            [helper.make_node("Cast", ["x"], ["y"], name="low", to=TensorProto.BFLOAT16)],
            [],
            {"low": "BFLOAT16"},
        ),
        ([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)], [], {}),
        (
            [
                helper.make_node(
                    "Constant", [], ["y"], value=numpy_helper.from_array(np.float16([1]))
                )
            ],
            [],
            {"y": "FLOAT16"},
        ),
    ],
)
def test_floats_that_are_not_float32_are_found(nodes, weights, found):
    numbers = other_numbers(graph_of(nodes, {"x": [1]}, weights))
    assert {**numbers.stored, **numbers.computed} == found


@pytest.mark.parametrize(
    ("node", "shapes", "weights", "macs"),
    [
        (
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
            {"x": [1, 3, 8, 8]},
            [("w", weight(16, 3, 3, 3))],
            16 * 4 * 4 * 3 * 9,
        ),
        (
            helper.make_node("Conv", ["x", "w"], ["y"], group=8),
            {"x": [1, 8, 5, 5]},
            [("w", weight(8, 1, 3, 3))],
            8 * 3 * 3 * 9,
        ),
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            {"x": [1, 4, 5, 5]},
            [("w", weight(4, 6, 2, 2))],
            4 * 25 * 6 * 4,
        ),
        (
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            {"x": [2, 5, 7]},
            [("w", weight(7, 3))],
            2 * 5 * 3 * 7,
        ),
        (
            helper.make_node("Gemm", ["x", "w"], ["y"], transA=1),
            {"x": [7, 5]},
            [("w", weight(7, 3))],
            5 * 3 * 7,
        ),
        (helper.make_node("Relu", ["x"], ["y"]), {"x": [9]}, [], 0),
        (
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            {"x": ["n", 7]},
            [("w", weight(7, 3))],
            210,
        ),
        (
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            {"x": ["unknown", 7]},
            [("w", weight(7, 3))],
            None,
        ),
    ],
)
def test_multiply_accumulates_are_counted_or_admitted_to_be_unknown(node, shapes, weights, macs):
    assert count_graph_macs(graph_of([node], shapes, weights), {"n": 10}) == macs


def test_a_pair_is_described(exported: ExportBundle):
    whole = summarise(exported.graphs["frame"].path)
    head = summarise(exported.graphs["mask_head"].path, {"n": 5})
    one = summarise(exported.graphs["mask_head"].path)
    assert whole.opset == 17
    assert whole.ops["Conv"] >= head.ops["Conv"] > 50
    assert "LayerNormalization" not in head.ops, "the instance decoder is not in the mask head"
    assert whole.macs > head.macs
    assert head.macs - one.macs == 4 * 16 * 8 * 16, "four more kernels over an 8x16 map of width 16"
    assert (head.free_axes, one.free_axes) == ({"n": 5}, {"n": 1})
    assert whole.metadata["role"] == "frame"
    assert whole.bytes == exported.graphs["frame"].path.stat().st_size


def test_an_opset_is_that_of_the_standard_operators():
    graph = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]}, opset=15)
    graph.opset_import.insert(0, helper.make_opsetid("com.microsoft", 1))
    assert opset_of(graph) == 15
    assert opset_of(onnx.ModelProto()) == 0


def test_shapes_that_contradict_each_other_are_refused():
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = graph_of([node], {"x": [2, 5]}, [("w", weight(7, 3))])
    with pytest.raises(BundleError, match="contradict"):
        count_graph_macs(graph, {})
