"""The ladder of a network that picks its instances: which ones matters, and not in what order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from forgery import change_weights, convolutions, edit_graph, insert_after
from ladders import RUNGS, check, climb
from onnx import helper, numpy_helper
from test_verify import Meddling

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.errors import VerificationFailed
from mobileinst_deploy.network.user_network import load_network
from mobileinst_deploy.optimize.pair import optimize_checked
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.simplify import require_unchanged
from mobileinst_deploy.quantize.int8 import _Quantizer

NAMES = ("class_logits", "objectness_logits", "kernels", "mask_logits")


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> ExportBundle:
    source = load_network("foreign_network:Picks", None, None)
    return export_model(source, tmp_path_factory.mktemp("picked") / "pair")


def of_frames(change: Callable[[dict], None]) -> Callable:
    """Meddle with picture 0 of the frame graph."""

    def meddle(call, result, index) -> None:
        if call.role == "frame" and index == 0:
            change(result)

    return meddle


def swap(first: int, second: int) -> Callable[[dict], None]:
    def change(result: dict) -> None:
        for name in NAMES:
            result[name][:, [first, second]] = result[name][:, [second, first]]

    return change


def replace_by(place: int, other: int) -> Callable[[dict], None]:
    """Another instance in the place of one: the score of ``other`` and a kernel of its own."""

    def change(result: dict) -> None:
        for name in NAMES:
            result[name][:, place] = result[name][:, other]
        result["kernels"][:, place] = -3 * result["kernels"][:, place, ::-1]
        result["mask_logits"][:, place] *= -3

    return change


def slightly_wrong(graph: onnx.ModelProto) -> None:
    change_weights(graph, convolutions(graph)[0], lambda w: w * np.float32(1.01))


def test_what_it_picks_is_told_in_a_rung_of_its_own(picked: ExportBundle):
    report = climb(picked)
    assert report.passed, report.first_failure
    values = RUNGS.index("values")
    assert [c.rung for c in report.checks] == [*RUNGS[:values], "instances", *RUNGS[values:]]
    assert check(report, "instances").figures["lowest_share"] == 1


def test_instances_may_come_in_another_order(picked: ExportBundle):
    report = climb(picked, Meddling(picked, of_frames(swap(2, 3))))
    assert report.passed, report.first_failure


def test_the_queries_of_a_network_that_picks_nothing_may_not(exported: ExportBundle):
    report = climb(exported, Meddling(exported, of_frames(swap(2, 3))))
    assert report.first_failure.rung == "values"


def test_the_last_one_may_be_another_of_the_same_worth(picked: ExportBundle):
    report = climb(picked, Meddling(picked, of_frames(replace_by(19, 19))))
    assert report.passed, report.first_failure
    instances = check(report, "instances")
    assert instances.figures["lowest_share"] == 0.95
    assert "on picture 0 1 of 20" in instances.detail


def test_one_of_more_worth_may_not_be_missing(picked: ExportBundle):
    report = climb(picked, Meddling(picked, of_frames(replace_by(0, 19))))
    assert report.first_failure.rung == "instances"
    assert "instance 0 of picture 0" in report.first_failure.detail
    assert report.first_failure.figures["graph"] == "frame"
    assert not check(report, "values").passed


def test_one_may_not_be_there_that_is_worth_more(picked: ExportBundle):
    report = climb(picked, Meddling(picked, of_frames(replace_by(19, 0))))
    assert report.first_failure.rung == "instances"
    assert "19 of picture 0" in report.first_failure.detail


def test_too_many_others_are_a_failure_whatever_they_are_worth(picked: ExportBundle):
    def change(result: dict) -> None:
        result["class_logits"][:] = result["class_logits"][:, -1:]
        for place in range(10):
            replace_by(place, 19)(result)

    assert climb(picked, Meddling(picked, of_frames(change))).first_failure.rung == "instances"


@pytest.mark.parametrize(("classes", "passes"), [(1, True), (2, False)])
def test_a_class_may_go_to_a_neighbour_that_ties_but_hardly_ever(picked, classes, passes):
    def change(result: dict) -> None:
        result["class_logits"][0, 4 : 4 + classes, 0] = -60

    report = climb(picked, Meddling(picked, of_frames(change)))
    assert report.passed is passes
    if passes:
        assert "rules 1 of their classes out" in check(report, "instances").detail
    else:
        assert report.first_failure.rung == "values"


def test_a_wrong_weight_is_no_matter_of_order(picked: ExportBundle, tmp_path: Path):
    pair = tmp_path / "pair"
    pair.mkdir()
    for file in picked.folder.iterdir():
        (pair / file.name).write_bytes(file.read_bytes())

    edit_graph(pair, "frame", slightly_wrong)
    assert not climb(load_bundle(pair)).passed


def turned(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, whose instances come in the reverse order."""
    turned = onnx.ModelProto()
    turned.CopyFrom(graph)
    turned.graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), name)
        for name, value in {"from": -1, "to": -(2**62), "axis": 1, "step": -1}.items()
    )
    for name in NAMES:
        insert_after(
            turned,
            name,
            lambda i, o: [helper.make_node("Slice", [i, "from", "to", "axis", "step"], [o])],
        )
    return turned


def test_simplification_may_change_their_order(picked: ExportBundle):
    graph, golden = load_graph(picked.graphs["frame"].onnx), load_golden(picked)
    want = {name: value[:1] for name, value in golden.frame.items()}
    other = turned(graph).SerializeToString()
    require_unchanged(other, graph, golden.inputs("frame", 0), want, picked.tolerance)

    wrong = turned(graph)
    slightly_wrong(wrong)
    with pytest.raises(VerificationFailed, match="changed"):
        require_unchanged(
            wrong.SerializeToString(), graph, golden.inputs("frame", 0), want, picked.tolerance
        )


def test_optimising_may_change_their_order(picked: ExportBundle):
    graph, golden = load_graph(picked.graphs["frame"].onnx), load_golden(picked)

    def rewrite(graph, largest_tile):
        return turned(graph), []

    _, report = optimize_checked("frame", graph, golden, picked.tolerance, rewrite)
    assert report.max_abs < 1e-4

    def spoil(graph, largest_tile):
        wrong = turned(graph)
        slightly_wrong(wrong)
        return wrong, []

    with pytest.raises(VerificationFailed):
        optimize_checked("frame", graph, golden, picked.tolerance, spoil)


def test_quantising_compares_by_instance(picked: ExportBundle):
    graph, golden = load_graph(picked.graphs["frame"].onnx), load_golden(picked)
    want = [{name: value[:1] for name, value in golden.frame.items()}]
    inputs = [golden.inputs("frame", 0)]
    (got,) = _Quantizer(graph, inputs).run(turned(graph), inputs, want)
    for name in NAMES:
        np.testing.assert_allclose(got[name], want[0][name], atol=1e-3)
