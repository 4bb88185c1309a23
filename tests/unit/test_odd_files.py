"""Files that are no plain files, and texts that are no plain numbers, end in a sentence at once."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from commands import mobileinst
from forgery import edit_graph
from onnx import TensorProto, helper, numpy_helper

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.content import MAX_BYTES, read_content
from mobileinst_deploy.core.documents import Blame, read_within
from mobileinst_deploy.core.errors import (
    BundleError,
    ConfigError,
    InputError,
    MediaError,
    MobileInstError,
)
from mobileinst_deploy.core.external_data import fault_of
from mobileinst_deploy.core.schedule import MAX_CLIP, parse_schedule
from mobileinst_deploy.core.text import whole
from mobileinst_deploy.media.pictures import read_picture
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.runtimes.graph_bounds import bounds_fault


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Nobody ever writes it: whoever opens it as a file waits for ever."""
    os.mkfifo(tmp_path / "pipe.mp4")
    return tmp_path / "pipe.mp4"


def test_a_pipe_is_no_content(pipe: Path):
    with pytest.raises(InputError, match="is no plain file"):
        read_content(pipe)


def test_a_pipe_is_no_picture(pipe: Path):
    with pytest.raises(MediaError, match="is no plain file"):
        read_picture(pipe)


def test_a_pipe_is_no_clip(pipe: Path):
    with pytest.raises(MediaError, match="a pipe or a device"):
        next(iter(open_clip(str(pipe))))


def test_a_pipe_without_a_writer_is_an_empty_document(pipe: Path):
    assert read_within(pipe, 100, Blame("it", InputError, "Correct it")) == b""


def test_a_sparse_giant_is_told_by_its_size(tmp_path: Path):
    path = tmp_path / "a.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="are the most"):
        read_content(path)


@pytest.mark.parametrize("text", ["1", "007", " 42\n", "-5"])
def test_a_plain_number_is_taken(text: str):
    assert whole(text, -10, 100) == int(text)


@pytest.mark.parametrize("text", ["", "-", "²", "٣", "1" * 5000, "1.0", "1e3", "0x1", "101", "+1"])
def test_anything_else_is_no_number(text: str):
    assert whole(text, -10, 100) is None


@pytest.mark.parametrize("text", ["0", "-1", "1" * 5000, "²", str(MAX_CLIP + 1), "\x1b[31m", ""])
def test_no_such_clip_length(text: str):
    with pytest.raises(
        ConfigError, match="is neither auto nor a number from 1 to 1,000,000"
    ) as raised:
        parse_schedule(text)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200


def looping(operator: str) -> onnx.ModelProto:
    """A graph that would run 2**62 times, hidden in the branch of an If."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("going", TensorProto.BOOL, [])],
    )
    loop = helper.make_node(operator, ["times", "yes"], ["x"], body=body)
    branch = helper.make_graph([loop], "branch", [], [])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_model(
        helper.make_graph(
            [node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
        )
    )


@pytest.mark.parametrize("operator", ["Loop", "Scan"])
def test_a_graph_that_may_never_end_is_not_loaded(tmp_path: Path, operator: str):
    data = looping(operator).SerializeToString()
    assert fault_of(data) == "holds a loop, which may never end"
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="a loop, which may never end"):
        load_graph(tmp_path / "a.onnx")


SQUARE = numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "square")
ONE = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")


def giant(how: str, square: TensorProto = SQUARE) -> onnx.ModelProto:
    """A graph of a few bytes that asks for 4 TiB while it is loaded or run."""
    made = {
        "filled": [helper.make_node("ConstantOfShape", ["square"], ["c"])],
        "spread": [helper.make_node("Expand", ["one", "square"], ["c"])],
        "repeated": [helper.make_node("Tile", ["one", "square"], ["c"])],
        "counted": [
            helper.make_node("Identity", ["square"], ["again"]),
            helper.make_node("ConstantOfShape", ["again"], ["c"]),
        ],
        "by the picture": [helper.make_node("Expand", ["x", "square"], ["c"])],
        "drawn": [helper.make_node("RandomNormal", [], ["c"], shape=numpy_helper.to_array(square))],
        "many": [
            node
            for n in range(40)
            for node in (
                helper.make_node("ConstantOfShape", ["small"], [f"p{n}"]),
                helper.make_node("ReduceSum", [f"p{n}"], ["c" if n == 39 else f"s{n}"]),
            )
        ],
    }
    small = numpy_helper.from_array(np.array([1 << 12, 1 << 10]), "small")
    if how == "inside a branch":
        then = helper.make_graph(made["filled"], "t", [], [_float("c")], [square])
        nodes = [helper.make_node("If", ["yes"], ["c"], then_branch=then, else_branch=then)]
    elif how == "inside a function":
        ids = [helper.make_opsetid("", 17)]
        inner = helper.make_function("own", "f", ["square"], ["c"], made["filled"], ids)
        nodes = [helper.make_node("f", ["square"], ["c"], domain="own")]
    else:
        nodes = made[how]
    nodes += [
        helper.make_node("ReduceSum", ["c"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [_float("x", 1, 1)], [_float("y", 1, 1)])
    graph.initializer.extend([square, ONE, small])
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    functions = [inner] if how == "inside a function" else []
    ids = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=ids, functions=functions, ir_version=8)


def _float(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or None)


GIANTS = (
    *("filled", "spread", "repeated", "counted", "by the picture", "drawn", "many"),
    *("inside a branch", "inside a function"),
)


@pytest.mark.parametrize("how", GIANTS)
def test_a_graph_that_asks_for_giants_is_told_by_its_shapes(how: str):
    data = giant(how).SerializeToString()
    assert len(data) < 20_000
    said = bounds_fault(data)
    assert said is not None
    assert ("MiB are the most" in said) or ("whose size its shapes do not tell" in said)


@pytest.mark.parametrize("how", ["filled", "spread", "repeated", "by the picture", "drawn"])
def test_the_same_graph_of_a_usual_size_is_taken(how: str):
    usual = numpy_helper.from_array(np.array([16, 16]), "square")
    assert bounds_fault(giant(how, usual).SerializeToString()) is None


def endless(how: str, length: int = 1 << 13) -> onnx.ModelProto:
    """A small graph that fits in memory and computes for hours, or as long as the picture says."""
    side = numpy_helper.from_array(np.array([length, length]), "side")
    square = helper.make_node("Expand", ["x", "side"], ["s0"])
    made = {
        "products": [
            square,
            *(helper.make_node("MatMul", [f"s{n}", f"s{n}"], [f"s{n + 1}"]) for n in range(20)),
            helper.make_node("ReduceSum", ["s20"], ["c"]),
        ],
        "one wide convolution": [
            helper.make_node("Expand", ["x", "map"], ["m"]),
            helper.make_node("Expand", ["x", "filters"], ["f"]),
            helper.make_node("Conv", ["m", "f"], ["d"], pads=[length // 16] * 4),
            helper.make_node("ReduceSum", ["d"], ["c"]),
        ],
        "a sum of letters": [
            helper.make_node("Squeeze", ["x"], ["x0"]),
            helper.make_node("Expand", ["x0", "line"], ["l"]),
            helper.make_node("Einsum", ["l"] * 4, ["c"], equation="a,b,c,d->"),
        ],
        "many samples": [
            helper.make_node("Expand", ["x", "map"], ["m"]),
            helper.make_node(
                *("RoiAlign", ["m", "boxes", "first"], ["r"]),
                sampling_ratio=length * 128,
            ),
            helper.make_node("ReduceSum", ["r"], ["c"]),
        ],
    }[how]
    nodes = [*made, helper.make_node("Mul", ["c", "x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [_float("x", 1, 1)], [_float("y")])
    graph.initializer.extend(
        [
            side,
            numpy_helper.from_array(np.array([length]), "line"),
            numpy_helper.from_array(np.array([1, 1, length // 8, length // 8]), "map"),
            numpy_helper.from_array(np.array([8, 1, length // 8, length // 8]), "filters"),
            numpy_helper.from_array(np.ones((length, 4), np.float32), "boxes"),
            numpy_helper.from_array(np.zeros(length, np.int64), "first"),
        ]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ENDLESS = ("products", "one wide convolution", "a sum of letters", "many samples")


@pytest.mark.parametrize("how", ENDLESS)
def test_a_graph_that_would_compute_for_hours_is_told_by_its_shapes(how: str):
    said = bounds_fault(endless(how).SerializeToString())
    assert said is not None
    assert "multiply-accumulates a run, and 9e12 are the most" in said


@pytest.mark.parametrize("how", ENDLESS)
def test_the_same_work_on_less_is_taken(how: str):
    assert bounds_fault(endless(how, 64).SerializeToString()) is None


@pytest.mark.parametrize("operator", ["NonZero", "Unique"])
def test_a_size_that_the_picture_decides_is_refused(operator: str):
    nodes = [helper.make_node(operator, ["x"], ["c"]), helper.make_node("Size", ["c"], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.INT64, [])
    graph = helper.make_graph(nodes, "g", [_float("x", 1, 1)], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert bounds_fault(model.SerializeToString()) == (
        "computes 'c', whose size its shapes do not tell"
    )


def test_a_name_that_is_no_text_is_told():
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [_float("x", 1, 1)], [_float("y", 1, 1)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    damaged = model.SerializeToString().replace(b"Identity", b"Identi\xff\xfe")
    with pytest.raises(ValueError, match="a name in it is no text"):
        bounds_fault(damaged)


@pytest.mark.parametrize(
    ("domain", "operator"),
    [("ai.onnx.ml", "TreeEnsembleRegressor"), ("com.microsoft", "GreedySearch")],
)
def test_operators_whose_work_no_shape_tells_are_refused(domain: str, operator: str):
    nodes = [helper.make_node(operator, ["x"], ["y"], domain=domain)]
    graph = helper.make_graph(nodes, "g", [_float("x", 1, 1)], [_float("y", 1, 1)])
    ids = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    said = bounds_fault(helper.make_model(graph, opset_imports=ids).SerializeToString())
    assert said == f"computes with the operator {domain}.{operator}, which is not ONNX's own"


@pytest.fixture
def giant_pair(exported: ExportBundle, tmp_path: Path) -> Path:
    """A pair whose frame graph fills 4 TiB while it is loaded."""
    pair = shutil.copytree(exported.folder, tmp_path / "pair")

    def grow(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(SQUARE)
        model.graph.node.append(helper.make_node("ConstantOfShape", ["square"], ["giant"]))

    edit_graph(pair, "frame", grow)
    return pair


COMMANDS = {
    "verify": ["verify", "{}"],
    "bench": ["bench", "{}"],
    "profile": ["profile", "{}"],
    "optimize": ["optimize", "{}", "-o", "{}-fast"],
    "quantize": ["quantize", "{}", "--images", "{images}", "-o", "{}-int8"],
    "run": ["run", "{}", "{images}", "-o", "{}-run"],
    "compare": ["compare", "{}", "{other}"],
    "count": ["bench", "{}", "--device", "qemu", "--count"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_a_runtime_load_a_giant(
    giant_pair: Path, exported: ExportBundle, tmp_path: Path, command: str
):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(4):
        cv2.imwrite(str(images / f"{number}.png"), np.zeros((48, 64, 3), np.uint8))
    places = {"images": str(images), "other": str(exported.folder)}
    words = [word.format(giant_pair, **places) for word in COMMANDS[command]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = mobileinst(*words)
    assert done.exit_code == 2, done.output
    assert "MiB are the most" in done.stderr
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
    assert not list(tmp_path.glob("pair-*"))


def test_a_sentence_of_a_library_keeps_one_full_stop():
    said = str(MobileInstError("the library says: it is wrong.", "Give another."))
    assert said == "the library says: it is wrong. Give another."
