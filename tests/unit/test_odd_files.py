"""Files that are no plain files, and texts that are no plain numbers, end in a sentence at once."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

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


def test_a_sentence_of_a_library_keeps_one_full_stop():
    said = str(MobileInstError("the library says: it is wrong.", "Give another."))
    assert said == "the library says: it is wrong. Give another."
