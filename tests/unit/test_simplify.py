"""Simplification is believed only when the outputs stay what PyTorch's are."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxsim
import pytest
from forgery import change_weights, convolutions, rename
from tiny import TOLERANCE

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.contract import graph_specs
from mobileinst_deploy.core.errors import BundleError, VerificationFailed
from mobileinst_deploy.network.loading import LoadedModel
from mobileinst_deploy.pair.simplify import require_unchanged, simplify_graph
from mobileinst_deploy.pair.tracing import trace_pair
from mobileinst_deploy.runtimes.onnxruntime import open_session


@pytest.fixture(scope="module")
def traced(tiny_source: LoadedModel, exported: ExportBundle):
    """The frame graph as traced, its inputs and PyTorch's outputs."""
    golden = load_golden(exported)
    specs = graph_specs(tiny_source.config)
    graph = trace_pair(tiny_source.model, specs, golden.image(0))["frame"]
    want = {name: value[:1] for name, value in golden.outputs("frame").items()}
    return graph, golden.inputs("frame", 0), want


def simplify_and_check(graph, feeds, want) -> None:
    """What an export does with a traced graph."""
    simplified = simplify_graph(graph)
    require_unchanged(simplified.SerializeToString(), graph, feeds, want, TOLERANCE)


def test_fewer_nodes_give_the_same_outputs(traced):
    graph, feeds, want = traced
    before = graph.SerializeToString(deterministic=True)
    simplified = simplify_graph(graph)
    require_unchanged(simplified.SerializeToString(), graph, feeds, want, TOLERANCE)
    assert len(simplified.graph.node) < 0.9 * len(graph.graph.node)
    assert graph.SerializeToString(deterministic=True) == before
    assert "Constant" not in {node.op_type for node in simplified.graph.node}
    got = open_session(simplified.SerializeToString()).run(list(want), feeds)
    for value, expected in zip(got, want.values(), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-3, rtol=1e-3)


def test_what_onnxsim_could_not_fold_is_not_told_by_the_line(traced, monkeypatch, capfd):
    def chatty(graph, **_):
        os.write(2, b'WARNING: failed to run "Reshape" op, skip...\n')
        return graph, True

    monkeypatch.setattr(onnxsim, "simplify", chatty)
    simplify_graph(traced[0])
    assert capfd.readouterr().err == ""


def test_a_failure_is_an_error_with_the_way_round(traced, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of luck\nand much more")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    with pytest.raises(BundleError, match=r"cannot simplify the graph: out of luck\.") as caught:
        simplify_graph(traced[0])
    assert caught.value.next_step == "Export with --no-simplify"


def broken(edit):
    """An onnxsim that breaks what it simplifies."""

    def simplify(graph: onnx.ModelProto, **kwargs):
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        edit(copy)
        return copy, True

    return simplify


def double(graph: onnx.ModelProto) -> None:
    change_weights(graph, convolutions(graph)[-1], lambda w: w * 2)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (double, "simplification by onnxsim changed"),
        (lambda g: rename(g, "kernels", "k"), "onnxsim changed the graph's outputs"),
        (lambda g: g.graph.output.pop(), "onnxsim changed the graph's outputs"),
    ],
)
def test_a_simplification_that_changes_something_is_never_used(traced, monkeypatch, edit, said):
    monkeypatch.setattr(onnxsim, "simplify", broken(edit))
    with pytest.raises(VerificationFailed, match=said) as caught:
        simplify_and_check(*traced)
    assert caught.value.next_step == "Export with --no-simplify"


def test_an_export_that_was_wrong_before_is_not_blamed_on_simplification(traced):
    graph, feeds, want = traced
    wrong = {name: value + 1 for name, value in want.items()}
    simplify_and_check(graph, feeds, wrong)
