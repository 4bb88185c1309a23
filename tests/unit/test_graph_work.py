"""The work of an operator is at least its multiply-accumulates, and not far above them."""

from __future__ import annotations

import pytest
from onnx import helper

from mobileinst_deploy.runtimes.graph_work import PER_ELEMENT, work_of

# operator, attributes, shapes of inputs and output, multiply-accumulates
CASES = {
    "Conv": ({}, [(1, 8, 16, 16), (12, 8, 3, 3)], (1, 12, 14, 14), 12 * 14 * 14 * 8 * 9),
    "Conv in groups": ({}, [(1, 8, 16, 16), (8, 1, 3, 3)], (1, 8, 14, 14), 8 * 14 * 14 * 9),
    "ConvInteger": ({}, [(1, 8, 16, 16), (12, 8, 3, 3)], (1, 12, 14, 14), 12 * 14 * 14 * 8 * 9),
    "QLinearConv": (
        {},
        [(1, 8, 16, 16), (), (), (12, 8, 3, 3), (), (), (), ()],
        (1, 12, 14, 14),
        12 * 14 * 14 * 8 * 9,
    ),
    "ConvTranspose": ({}, [(1, 8, 4, 4), (8, 6, 2, 2)], (1, 6, 8, 8), 8 * 16 * 6 * 4),
    "MatMul": ({}, [(2, 5, 300), (2, 300, 9)], (2, 5, 9), 2 * 5 * 300 * 9),
    "MatMul of vectors": ({}, [(300,), (300,)], (), 300),
    "Gemm": ({}, [(5, 300), (300, 9), (9,)], (5, 9), 5 * 300 * 9),
    "Gemm turned": ({"transA": 1}, [(300, 5), (300, 9), (9,)], (5, 9), 5 * 300 * 9),
    "Einsum": ({"equation": "bij, bjk -> bik"}, [(2, 5, 300), (2, 300, 9)], (2, 5, 9), 27_000),
    "LSTM": ({}, [(7, 1, 20), (1, 120, 20), (1, 120, 30)], (7, 1, 1, 30), 7 * 120 * 50),
    "MaxPool": ({"kernel_shape": [9, 9]}, [(1, 3, 20, 20)], (1, 3, 12, 12), 3 * 144 * 81),
    "RoiAlign": ({"sampling_ratio": 40}, [(1, 2, 9, 9), (3, 4), (3,)], (3, 2, 1, 1), 6 * 1600),
    "Attention": (
        {},
        [(1, 4, 50, 8), (1, 4, 50, 8), (1, 4, 50, 8)],
        (1, 4, 50, 8),
        4 * 50 * 50 * 8,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_product_is_counted_too_low_or_far_too_high(case: str):
    attributes, inputs, output, macs = CASES[case]
    names = [f"i{n}" for n in range(len(inputs))]
    node = helper.make_node(case.split()[0], names, ["y"], **attributes)
    shapes = {**dict(zip(names, inputs, strict=True)), "y": output}
    elements = sum(_size(shape) for shape in shapes.values())
    assert macs <= work_of(node, shapes) <= macs + PER_ELEMENT * elements


def test_a_kernel_larger_than_its_map_reads_the_map():
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1 << 40, 1 << 40])
    assert work_of(node, {"x": (1, 1, 8, 8), "y": (1, 1, 8, 8)}) < 10_000


def test_as_many_samples_as_a_box_asks_for_are_counted_as_very_many():
    node = helper.make_node("RoiAlign", ["x", "boxes", "first"], ["y"])
    assert (
        work_of(node, {"x": (1, 1, 8, 8), "boxes": (1, 4), "first": (1,), "y": (1, 1, 1, 1)}) > 1e9
    )


def test_letters_of_an_unknown_number_of_axes_are_counted_by_all_elements():
    node = helper.make_node("Einsum", ["a", "b"], ["y"], equation="...i,...i->...")
    assert work_of(node, {"a": (5, 300), "b": (5, 300), "y": (5,)}) >= 5 * 300


@pytest.mark.parametrize("operator", ["Add", "Softmax", "Resize", "AnOperatorOfTomorrow"])
def test_what_is_no_product_is_counted_by_its_elements(operator: str):
    node = helper.make_node(operator, ["x"], ["y"])
    assert work_of(node, {"x": (4, 100), "y": (4, 100)}) == 800 * PER_ELEMENT


@pytest.mark.parametrize("operator", ["Conv", "MatMul", "LSTM", "Gemm", "Einsum", "RoiAlign"])
def test_an_operator_without_its_inputs_is_counted_and_not_a_fault(operator: str):
    assert work_of(helper.make_node(operator, [], ["y"]), {}) >= 0


@pytest.mark.parametrize("value", ["x", 3, 2.5, [1.5], ["x"], [1 << 40, 1 << 40]])
@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("MaxPool", "kernel_shape"),
        ("Einsum", "equation"),
        ("RoiAlign", "sampling_ratio"),
        ("Gemm", "transA"),
        ("LRN", "size"),
        ("Attention", "num_heads"),
    ],
)
def test_an_attribute_of_another_type_is_no_fault_of_this_program(operator, name, value):
    node = helper.make_node(operator, ["a", "b"], ["y"], **{name: value})
    assert work_of(node, {"a": (2, 3), "b": (3, 4), "y": (2, 4)}) > 0


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
