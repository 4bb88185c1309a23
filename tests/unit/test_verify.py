"""The ladder holds for a good pair, and each rung breaks under exactly what it watches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from forgery import (
    change_weights,
    convolutions,
    edit_graph,
    edit_manifest,
    insert_after,
    producer,
)
from ladders import RUNGS, check, climb
from onnx import helper, numpy_helper

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.pair.comparison import compare_tensor, cosine, mask_ious
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner


class Meddling:
    """A runner that changes what the real one returns."""

    name = "meddling"
    runtime = "onnxruntime"
    emulated = False

    def __init__(self, bundle: ExportBundle, meddle: Callable) -> None:
        self.real, self.meddle = CpuRunner(bundle), meddle
        self.specs = bundle.specs

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        results = self.real.outputs(calls)
        for index, (call, result) in enumerate(zip(calls, results, strict=True)):
            self.meddle(call, result, index)
        return results


def test_a_good_pair_holds_on_every_rung(exported: ExportBundle):
    report = climb(exported)
    assert [c.rung for c in report.checks] == RUNGS
    assert report.passed
    assert {(t.graph, t.tensor) for t in report.tensors} == {
        ("frame", "class_logits"),
        ("frame", "objectness_logits"),
        ("frame", "kernels"),
        ("frame", "mask_logits"),
        ("mask_head", "mask_logits"),
    }
    assert check(report, "meaning").figures["min_mask_iou"] == 1
    assert [f["age"] for f in check(report, "sequence").figures["frames"]] == [1, 2]
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"] is True


def test_every_picture_is_run_and_the_phone_is_asked_only_twice(exported: ExportBundle):
    batches = []

    def note(call: Call, result: dict, index: int) -> None:
        if index == 0:
            batches.append([])
        batches[-1].append((call.role, call.inputs.get("kernels", np.zeros((1, 0))).shape[1]))

    assert climb(exported, Meddling(exported, note)).passed
    frames, heads = batches
    assert frames == [("frame", 0)] * 4
    assert heads == [("mask_head", 5)] * 8 + [("mask_head", 3), ("mask_head", 1)]


def test_scores_that_fall_on_the_other_side_of_the_threshold_are_told(exported: ExportBundle):
    """Two thousandths around 0.3 are an edge: allowed, and not passed over."""
    golden = load_golden(exported)
    logits = golden.frame["class_logits"].copy()
    objectness = np.full_like(golden.frame["objectness_logits"], 40)
    at = float(np.log(0.09 / 0.91))  # a score of 0.3
    logits[:], logits[0, 0, 0] = -9, at + 0.01
    frame = {**golden.frame, "class_logits": logits, "objectness_logits": objectness}
    golden = replace(golden, frame=frame)

    def below(call, result, index):
        if call.role == "frame":
            result["class_logits"] = logits[index : index + 1] - np.float32(0.02)
            result["objectness_logits"] = objectness[index : index + 1]

    meaning = check(climb(exported, Meddling(exported, below), golden), "meaning")
    assert meaning.passed, meaning.detail
    assert "1 scores within 0.005 of it fall on the other side" in meaning.detail


def poison(graph: onnx.ModelProto) -> None:
    change_weights(graph, convolutions(graph)[10], lambda w: np.full_like(w, np.nan))


def perturb(graph: onnx.ModelProto) -> None:
    """One weight in one convolution of the backbone."""

    def edit(weights: np.ndarray) -> np.ndarray:
        weights.flat[7] += 0.5
        return weights

    change_weights(graph, convolutions(graph)[5], edit)


def add_to(output: str, value: float) -> Callable[[onnx.ModelProto], None]:
    def edit(graph: onnx.ModelProto) -> None:
        graph.graph.initializer.append(numpy_helper.from_array(np.float32(value), "shift"))
        insert_after(graph, output, lambda i, o: [helper.make_node("Add", [i, "shift"], [o])])

    return edit


def ignore_n(graph: onnx.ModelProto) -> None:
    """Apply the first kernel to all: any number of kernels in, the same number out."""
    constants = {"zero": [0], "one": [1], "axis": [1]}
    for name, value in constants.items():
        graph.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == "kernels":
                node.input[index] = "shifted"
    nodes = [
        helper.make_node("ReduceMean", ["kernels"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Add", ["kernels", "mean"], ["shifted"]),
    ]
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)


def always_five(graph: onnx.ModelProto) -> None:
    """Pad whatever kernels come to five, and give five masks."""
    constants = {"zero": [0], "five": [5], "axis": [1]}
    for name, value in constants.items():
        graph.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    nodes = [
        helper.make_node("Concat", ["kernels"] * 5, ["repeated"], axis=1),
        helper.make_node("Slice", ["repeated", "zero", "five", "axis"], ["padded"]),
    ]
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == "kernels":
                node.input[index] = "padded"
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)


@pytest.mark.parametrize(
    ("role", "edit", "rung", "said"),
    [
        ("frame", poison, "finite", "frame class_logits of picture 0 holds 15 values"),
        ("mask_head", poison, "finite", "mask_head mask_logits of picture 0 holds 640 values"),
        ("frame", perturb, "values", "frame objectness_logits differs by up to"),
        ("mask_head", perturb, "values", "mask_head mask_logits differs by up to"),
        ("frame", add_to("class_logits", 5.0), "values", "frame class_logits differs by up to 5"),
        ("mask_head", ignore_n, "values", "mask_head mask_logits differs by up to"),
        ("mask_head", always_five, "live kernels", "3 kernels gave mask_logits of shape 1x5x8x16"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_graph_computes_breaks_its_rung(pair: Path, role, edit, rung, said):
    edit_graph(pair, role, edit)
    report = climb(load_bundle(pair))
    assert not report.passed
    assert report.first_failure.rung == rung
    assert said in report.first_failure.detail
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_wrong_weight_is_placed_and_fails_every_rung_that_sees_it(pair: Path):
    edit_graph(pair, "mask_head", perturb)
    report = climb(load_bundle(pair))
    values = check(report, "values")
    assert "at picture" in values.detail
    assert "position (" in values.detail
    assert [t.passed for t in report.tensors] == [True] * 4 + [False]
    for rung in ("pair contract", "sequence"):
        assert not check(report, rung).passed
        assert "mask_logits" in check(report, rung).detail
        assert "position (" in check(report, rung).detail
    assert check(report, "live kernels").passed


def test_a_class_on_the_other_side_of_the_threshold_is_named(pair: Path):
    edit_graph(pair, "frame", add_to("class_logits", 6.0))
    meaning = check(climb(load_bundle(pair)), "meaning")
    assert not meaning.passed
    assert "class 0 of query 0 on picture 0 scores" in meaning.detail
    assert "on the other side of 0.3" in meaning.detail
    assert meaning.figures["classes_that_differ"] > 0


def test_masks_that_do_not_overlap_are_named_even_where_values_may_differ(pair: Path):
    def much(document) -> None:
        document["tolerance"].update(atol=1e6, min_cosine=0)

    edit_manifest(pair, much)
    edit_graph(pair, "mask_head", add_to("mask_logits", -0.05))
    report = climb(load_bundle(pair))
    assert check(report, "values").passed
    assert report.first_failure.rung == "meaning"
    assert "mask_head mask_logits: mask" in report.first_failure.detail


def test_an_error_that_only_carried_kernels_show_breaks_the_sequence(exported: ExportBundle):
    golden = load_golden(exported)
    own = [golden.kernels(i) for i in range(4)]

    def meddle(call: Call, result: dict, index: int) -> None:
        kernels = call.inputs.get("kernels")
        carried = kernels is not None and kernels.shape[1] == 5
        if carried and index in (5, 6):  # the reuse frames of the batch's second half
            result["mask_logits"] += 0.1

    report = climb(exported, Meddling(exported, meddle))
    assert [c.rung for c in report.checks if not c.passed] == ["sequence"]
    assert "1 frames after its keyframe, mask_logits of picture 1" in report.first_failure.detail
    assert len(own) == 4


def test_a_frame_graph_that_disagrees_with_its_own_kernels_breaks_the_contract(
    exported: ExportBundle,
):
    def meddle(call: Call, result: dict, index: int) -> None:
        if call.role == "mask_head" and index == 4:  # a keyframe with the kernels it gave itself
            result["mask_logits"][0, 3, 2, 1] += 0.5

    report = climb(exported, Meddling(exported, meddle))
    assert [c.rung for c in report.checks if not c.passed] == ["pair contract"]
    assert report.first_failure.detail.startswith("on keyframe 0 the two graphs' mask_logits")
    assert "(3, 2, 1)" in report.first_failure.detail


def test_a_mask_that_depends_on_the_other_kernels_breaks_live_kernels(exported: ExportBundle):
    def meddle(call: Call, result: dict, index: int) -> None:
        if call.role == "mask_head":
            result["mask_logits"] += 0.1 * (5 - call.inputs["kernels"].shape[1])

    report = climb(exported, Meddling(exported, meddle))
    assert [c.rung for c in report.checks if not c.passed] == ["live kernels"]
    assert "with 3 of 5 kernels mask_logits change by up to 0.2" in report.first_failure.detail


# -- what a device does with them --------------------------------------------------------------


@pytest.mark.parametrize("role", ["frame", "mask_head"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r.pop("mask_logits"), "came back as nothing, not float32 1x"),
        (
            lambda r: r.update(mask_logits=r["mask_logits"][..., :-1]),
            "came back as float32",
        ),
        (lambda r: r.update(mask_logits=r["mask_logits"] * 1.0), None),
        (lambda r: r.update(mask_logits=r["mask_logits"].astype("f8")), "came back as float64"),
    ],
)
def test_what_a_device_returns_is_checked_before_it_is_compared(exported, role, spoil, said):
    def meddle(call: Call, result: dict, index: int) -> None:
        if call.role == role and index == 2:
            spoil(result)

    report = climb(exported, Meddling(exported, meddle))
    if said is None:
        assert report.passed
        return
    assert report.first_failure.rung == "outputs"
    assert f"{role} mask_logits of picture 2 {said}" in report.first_failure.detail


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found_and_placed(exported: ExportBundle, value):
    def meddle(call: Call, result: dict, index: int) -> None:
        if call.role == "mask_head" and index == 5:
            result["mask_logits"][0, 4, 3, 2] = value

    report = climb(exported, Meddling(exported, meddle))
    assert report.first_failure.rung == "finite"
    assert "of picture 1 holds 1 values" in report.first_failure.detail
    assert "position (0, 4, 3, 2)" in report.first_failure.detail


def test_a_device_that_answers_too_little_has_failed(exported: ExportBundle):
    class Lazy(Meddling):
        def outputs(self, calls):
            return super().outputs(calls)[:-1]

    with pytest.raises(DeviceError, match="answered 3 of 4 runs of the frame graph"):
        climb(exported, Lazy(exported, lambda *_: None))


def test_one_picture_alone_makes_no_sequence(exported: ExportBundle):
    golden = load_golden(exported)
    one = Golden(
        images=golden.images[:1],
        keyframe=golden.keyframe[:1],
        frame={name: value[:1] for name, value in golden.frame.items()},
        mask_logits=golden.mask_logits[:1],
    )
    report = climb(exported, golden=one)
    assert report.passed
    assert check(report, "sequence").detail == "one picture alone makes no clip"


# -- the arithmetic ----------------------------------------------------------------------------


def test_a_tensor_passes_when_every_element_and_the_direction_are_within_tolerance():
    want = np.array([[1.0, -2.0, 100.0, 0.0]], np.float32)
    tolerance = Tolerance(atol=0.1, rtol=0.01, min_cosine=0.999)
    parity = compare_tensor("frame", "t", want + np.float32([0, 0, 1.05, 0]), want, tolerance)
    assert parity.passed
    assert parity.max_abs == pytest.approx(1.05, rel=1e-5)
    assert parity.max_rel == pytest.approx(0.0105, rel=1e-4)
    assert parity.max_excess == pytest.approx(1.05 / 1.1, rel=1e-4)
    assert parity.worst == (0, 2)
    parity = compare_tensor("frame", "t", want + np.float32([0, 0, 0, 0.2]), want, tolerance)
    assert not parity.passed
    assert parity.worst == (0, 3)
    assert parity.max_rel == 0
    turned = replace(tolerance, atol=10, min_cosine=0.9999)
    assert not compare_tensor("frame", "t", want + np.float32([9, 0, 0, 0]), want, turned).passed


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 0], [2, 0], 1),
        ([1, 0], [0, 1], 0),
        ([1, 0], [-1, 0], -1),
        ([0, 0], [0, 0], 1),
        ([0, 0], [1, 0], 0),
    ],
)
def test_cosine_similarity(a, b, expected):
    assert cosine(np.float32(a), np.float32(b)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("got", "want", "expected"),
    [
        ([1, 1, -1, -1], [1, 1, -1, -1], 1),
        ([1, -1, -1, -1], [1, 1, -1, -1], 1 / 2),
        ([-1, -1, 1, 1], [1, 1, -1, -1], 0),
        ([-1, -1, -1, -1], [-1, -1, -1, -1], 1),
        ([1, -0.001, -1, -1], [1, 0.001, -1, -1], 1),
        ([1, -9, -1, -1], [1, 0.001, -1, -1], 1),
        ([1, -0.001, -1, -1], [1, 0.03, -1, -1], 1 / 2),
    ],
)
def test_masks_are_compared_but_for_pixels_on_their_edge(got, want, expected):
    shaped = (np.float32(x).reshape(1, 2, 2) for x in (got, want))
    assert mask_ious(*shaped) == pytest.approx([expected])


def test_a_graph_is_found_by_the_names_it_was_broken_at(pair: Path):
    """The tampering of these tests itself: it spoils what it says and nothing else."""
    before = load_graph(pair / "frame.onnx")
    edit_graph(pair, "frame", perturb)
    after = load_graph(pair / "frame.onnx")
    changed = [
        old.name
        for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if old != new
    ]
    assert changed == [convolutions(before)[5].input[1]]
    assert producer(after, "kernels").op_type == producer(before, "kernels").op_type
