"""The ladder holds for a good pair, and each rung breaks under exactly what it watches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from forgery import (
    change_weights,
    constant,
    convolutions,
    edit_graph,
    edit_manifest,
    insert_after,
    producer,
    rename,
)
from onnx import TensorProto, helper, numpy_helper

from mobileinst_deploy.core.bundle import HALF_WEIGHTS, ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.core.records import Check, ParityReport
from mobileinst_deploy.pair.comparison import compare_tensor, cosine, mask_ious
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.quantize import half
from mobileinst_deploy.quantize.int8 import INT8
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner

RUNGS = [
    "pair",
    "names",
    "dtypes",
    "shapes",
    "operators",
    "outputs",
    "finite",
    "values",
    "meaning",
    "pair contract",
    "live kernels",
    "sequence",
]


def climb(bundle: ExportBundle, runner=None, golden: Golden | None = None) -> ParityReport:
    return verify_bundle(
        bundle,
        runner or CpuRunner(bundle),
        golden or load_golden(bundle),
        reference="PyTorch, at the export",
    )


def check(report: ParityReport, rung: str) -> Check:
    return next(c for c in report.checks if c.rung == rung)


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


# -- what the graphs are, before anything runs --------------------------------------------------


def swap_role(graph: onnx.ModelProto) -> None:
    for entry in graph.metadata_props:
        if entry.key == "mobileinst.role":
            entry.value = "mask_head"


def other_pair(graph: onnx.ModelProto) -> None:
    for entry in graph.metadata_props:
        if entry.key == "mobileinst.pair_id":
            entry.value = "0123456789abcdef"


def no_metadata(graph: onnx.ModelProto) -> None:
    del graph.metadata_props[:]


def another_opset(graph: onnx.ModelProto) -> None:
    graph.opset_import[0].version = 18


def half_weights(graph: onnx.ModelProto) -> None:
    """Weights stored as fp16 and cast back, so that every border still says float32."""
    node = convolutions(graph)[3]
    tensor = constant(graph, node.input[1])
    name = tensor.name
    low = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + "_half")
    tensor.CopyFrom(low)
    graph.graph.node.insert(0, helper.make_node("Cast", [low.name], [name], to=TensorProto.FLOAT))


def half_inside(graph: onnx.ModelProto) -> None:
    def through_half(inner: str, outer: str) -> list:
        return [
            helper.make_node("Cast", [inner], [inner + "_h"], name="to_half", to=10),
            helper.make_node("Cast", [inner + "_h"], [outer], name="to_float", to=1),
        ]

    insert_after(graph, "mask_logits", through_half)


def half_border(graph: onnx.ModelProto) -> None:
    insert_after(
        graph, "kernels", lambda i, o: [helper.make_node("Cast", [i], [o], to=TensorProto.FLOAT16)]
    )
    next(v for v in graph.graph.output if v.name == "kernels").type.tensor_type.elem_type = 10


def wrong_shape(graph: onnx.ModelProto) -> None:
    output = next(v for v in graph.graph.output if v.name == "kernels")
    output.type.tensor_type.shape.dim[2].dim_value = 32


def free_batch(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def branch(graph: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """A branch that is never taken, beside the graph's own nodes."""
    result = helper.make_tensor_value_info("never", TensorProto.FLOAT, None)
    inner = helper.make_graph(list(nodes), "inner", [], [result])
    graph.graph.initializer.append(numpy_helper.from_array(np.bool_(False), "no"))
    graph.graph.node.append(
        helper.make_node("If", ["no"], ["taken"], then_branch=inner, else_branch=inner)
    )


def half_in_a_branch(graph: onnx.ModelProto) -> None:
    branch(
        graph,
        helper.make_node("Cast", ["image"], ["l"], name="low", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["l"], ["never"], to=TensorProto.FLOAT),
    )


def forbidden_in_a_branch(graph: onnx.ModelProto) -> None:
    node = helper.make_node("Where", ["no", "image", "image"], ["never"], name="hidden_where")
    branch(graph, node)


def eight_bits(graph: onnx.ModelProto) -> None:
    """Mask logits rounded to multiples of 1e-6, by way of 8 bits that are then thrown away."""
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(1.0), "step"),
            numpy_helper.from_array(np.int8(0), "zero_point"),
            numpy_helper.from_array(np.float32(0.0), "nothing"),
        ]
    )

    def through(inner: str, outer: str) -> list:
        return [
            helper.make_node(
                "QuantizeLinear", [inner, "step", "zero_point"], ["q"], name="to_8_bits"
            ),
            helper.make_node("DequantizeLinear", ["q", "step", "zero_point"], ["back"]),
            helper.make_node("Mul", ["back", "nothing"], ["none"]),
            helper.make_node("Add", [inner, "none"], [outer]),
        ]

    insert_after(graph, "mask_logits", through)


def forbidden(graph: onnx.ModelProto) -> None:
    zero = numpy_helper.from_array(np.float32(-1e9), "far")
    graph.graph.initializer.append(zero)
    insert_after(
        graph,
        "kernels",
        lambda i, o: [
            helper.make_node("Greater", [i, "far"], ["there"], name="sneaky_greater"),
            helper.make_node("Where", ["there", i, "far"], [o], name="sneaky_where"),
        ],
    )


@pytest.mark.parametrize(
    ("edit", "rung", "said"),
    [
        (swap_role, "pair", "frame.onnx carries role 'mask_head' and the manifest 'frame'"),
        (other_pair, "pair", "frame.onnx carries pair_id '0123456789abcdef'"),
        (no_metadata, "pair", "frame.onnx carries pair_id None"),
        (another_opset, "pair", "frame.onnx has opset 18 and the manifest 17"),
        (lambda g: rename(g, "kernels", "kernel"), "names", "frame has outputs class_logits, "),
        (lambda g: rename(g, "image", "input"), "names", "frame has inputs input instead of image"),
        (half_weights, "dtypes", "_half in FLOAT16, not in float32"),
        (half_in_a_branch, "dtypes", "frame computes low in FLOAT16, not in float32"),
        (eight_bits, "dtypes", "frame computes to_8_bits in INT8, not in float32"),
        (half_inside, "dtypes", "frame computes to_half in FLOAT16, not in float32"),
        (half_border, "dtypes", "frame kernels is float16, not float32"),
        (wrong_shape, "shapes", "frame kernels has shape 1x5x32, not 1x5x16"),
        (free_batch, "shapes", "frame image has shape batchx3x64x128, not 1x3x64x128"),
        (forbidden, "operators", "frame uses Greater at sneaky_greater"),
        (forbidden_in_a_branch, "operators", "frame uses Where at hidden_where"),
    ],
)
def test_what_a_graph_is_breaks_its_rung_before_anything_runs(pair: Path, edit, rung, said):
    edit_graph(pair, "frame", edit)
    bundle = load_bundle(pair)

    class Untouched:
        name, runtime, emulated = "untouched", "none", False

        def outputs(self, calls):
            raise AssertionError("the graphs were run")

    report = climb(bundle, Untouched())
    assert not report.passed
    assert report.first_failure.rung == rung
    assert said in report.first_failure.detail
    assert [c.rung for c in report.checks] == RUNGS[: RUNGS.index(rung) + 1]
    assert report.tensors == ()


@pytest.mark.parametrize(
    ("steps", "edit", "said"),
    [
        ((), None, "float32 at the borders and inside"),
        (("split-depthwise",), None, "float32 at the borders and inside"),
        ((HALF_WEIGHTS,), None, "float32 at the borders and inside"),
        (
            (HALF_WEIGHTS,),
            half_weights,
            "float32 at the borders and inside but for 1 constants stored as FLOAT16",
        ),
        (
            (INT8,),
            eight_bits,
            "float32 at the borders and inside but for 1 nodes that give INT8, "
            "1 constants stored as INT8",
        ),
    ],
    ids=["plain", "rewritten", "half of nothing", "half", "int8"],
)
def test_what_numbers_a_pair_is_of_is_said_of_the_very_pair(pair: Path, steps, edit, said):
    if edit:
        edit_graph(pair, "frame", edit)
    edit_manifest(pair, lambda m: m["optimized"].extend(steps))
    found = check(climb(load_bundle(pair)), "dtypes")
    assert (found.passed, found.detail) == (True, said)


@pytest.mark.parametrize(
    ("steps", "edit", "said"),
    [
        (("split-depthwise",), half_weights, "frame stores .*_half in FLOAT16, not in float32"),
        (("split-depthwise",), half_inside, "frame computes to_half in FLOAT16, not in float32"),
        ((HALF_WEIGHTS,), half_inside, "frame computes to_half in FLOAT16, not in float32"),
        ((INT8,), half_weights, "frame stores .*_half in FLOAT16, not in float32"),
        ((HALF_WEIGHTS,), eight_bits, "frame computes to_8_bits in INT8, not in float32"),
    ],
)
def test_a_derived_pair_computes_in_nothing_that_its_steps_do_not_name(pair, steps, edit, said):
    edit_graph(pair, "frame", edit)
    edit_manifest(pair, lambda m: m["optimized"].extend(steps))
    failure = climb(load_bundle(pair)).first_failure
    assert failure.rung == "dtypes"
    assert re.search(said, failure.detail)


def test_a_halved_pair_says_what_it_stores(exported: ExportBundle, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(half, "_WORTH_HALVING", 64)
    pair, _, _ = half.halve_pair(exported, tmp_path / "half")
    found = check(climb(pair), "dtypes")
    assert found.passed
    assert re.fullmatch(r"float32 at .* but for \d+ constants stored as FLOAT16", found.detail)


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


# -- what the graphs compute -------------------------------------------------------------------


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


# -- what a device does with them --------------------------------------------------------------


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
