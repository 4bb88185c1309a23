"""Where a wrong graph parts from a fresh export, to the node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from forgery import change_weights, convolutions, producer, rename

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.contract import Role, graph_specs
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.records import Check, ParityReport, TensorParity
from mobileinst_deploy.network.loading import LoadedModel
from mobileinst_deploy.pair.locate import first_divergence, suspects
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.tracing import trace_pair


@pytest.fixture(scope="module")
def fresh(tiny_source: LoadedModel, exported: ExportBundle) -> dict[Role, onnx.ModelProto]:
    image = load_golden(exported).image(0)
    return trace_pair(tiny_source.model, graph_specs(tiny_source.config), image)


def locate(exported: ExportBundle, fresh, role: Role, graph: onnx.ModelProto):
    feeds = load_golden(exported).inputs(role, 1)
    return first_divergence(graph, fresh[role], feeds, exported.tolerance)


@pytest.mark.parametrize("role", ["frame", "mask_head"])
def test_a_good_graph_parts_nowhere(exported: ExportBundle, fresh, role):
    assert locate(exported, fresh, role, load_graph(exported.graphs[role].path)) is None


@pytest.mark.parametrize("role", ["frame", "mask_head"])
@pytest.mark.parametrize("which", [0, 5, 20, 40, -1])
def test_the_node_whose_weights_changed_is_named_exactly(exported, fresh, role, which):
    graph = load_graph(exported.graphs[role].path)
    node = convolutions(graph)[which]
    change_weights(graph, node, lambda w: w * 1.5 + 0.1)
    found = locate(exported, fresh, role, graph)
    assert (found.node, found.op_type, found.output) == (node.name, "Conv", node.output[0])
    assert found.max_abs > exported.tolerance.atol
    assert len(found.position) == 4
    assert str(found).startswith(f"node {node.name} (Conv), output {node.output[0]}: off by up to")


def test_a_value_that_is_not_finite_is_where_it_arises(exported: ExportBundle, fresh):
    graph = load_graph(exported.graphs["frame"].path)
    node = convolutions(graph)[7]
    change_weights(graph, node, lambda w: np.full_like(w, np.nan))
    found = locate(exported, fresh, "frame", graph)
    assert (found.node, found.max_abs) == (node.name, None)
    assert "not comparable" in str(found)


def test_a_shape_that_changed_is_a_difference(exported: ExportBundle, fresh):
    graph = load_graph(exported.graphs["mask_head"].path)
    node = producer(graph, "mask_logits")
    node.op_type, node.input[1:] = "Flatten", []
    del node.attribute[:]
    found = locate(exported, fresh, "mask_head", graph)
    assert (found.op_type, found.max_abs, found.position) == ("Flatten", None, ())


def test_graphs_without_a_name_in_common_cannot_be_compared(exported: ExportBundle, fresh):
    graph = load_graph(exported.graphs["mask_head"].path)
    for node in graph.graph.node:
        for name in list(node.output):
            rename(graph, name, f"other_{name}")
    with pytest.raises(BundleError, match="share no tensor names"):
        locate(exported, fresh, "mask_head", graph)


def report(checks=(), tensors=()) -> ParityReport:
    return ParityReport(
        "00", "tiny", False, "cpu", "onnxruntime", "PyTorch", {}, tuple(checks), tuple(tensors)
    )


def tensor(graph: str, picture: int, passed: bool) -> TensorParity:
    return TensorParity(graph, "mask_logits", 1.0, 1.0, 0.0, 9.0, (picture, 0, 0, 0), passed)


@pytest.mark.parametrize(
    ("failed", "likeliest"),
    [
        (report(), [("frame", 0), ("mask_head", 0)]),
        (
            report(tensors=[tensor("frame", 1, True), tensor("mask_head", 2, False)]),
            [("mask_head", 2), ("frame", 0)],
        ),
        (
            report(tensors=[tensor("frame", 3, False), tensor("mask_head", 2, False)]),
            [("frame", 3), ("mask_head", 2)],
        ),
        (
            report([Check("finite", False, "", {"graph": "mask_head", "picture": 1})]),
            [("mask_head", 1), ("frame", 0)],
        ),
    ],
)
def test_the_search_begins_where_the_ladder_broke(failed, likeliest):
    assert suspects(failed) == likeliest
