"""The rungs that need no run break under exactly what they watch."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from forgery import (
    constant,
    convolutions,
    edit_graph,
    edit_manifest,
    insert_after,
    rename,
)
from ladders import RUNGS, check, climb
from onnx import TensorProto, helper, numpy_helper

from mobileinst_deploy.core.bundle import HALF_WEIGHTS, ExportBundle, load_bundle
from mobileinst_deploy.quantize import half
from mobileinst_deploy.quantize.int8 import INT8


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
