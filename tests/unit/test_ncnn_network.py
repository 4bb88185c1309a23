"""ncnn networks as files: read, renamed, and their weights held against what they name."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mobileinst_deploy.core.content import read_content
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.runtimes.ncnn.network import check_weights, read_param, rename_blobs

TEXT = """7767517
5 5
Input                    in0          0 1 in0
MemoryData               constant     0 1 1 0=1 1=1 2=3
BinaryOp                 sub          2 1 in0 1 2 0=1
Convolution              conv         1 1 2 3 0=2 1=1 5=1 6=6
Gemm                     gemm         1 1 3 out0 4=0 5=1 6=1 7=1 8=2 9=2 10=4
"""
FP32, FP16 = struct.pack("<I", 0), struct.pack("<I", 0x01306B47)
CONSTANT, BIAS = bytes(4 * 3), bytes(4 * 2)
WEIGHTS = CONSTANT + FP32 + bytes(4 * 6) + BIAS + FP32 + bytes(4 * 4) + FP32 + BIAS


@pytest.fixture
def param(tmp_path: Path) -> Path:
    path = tmp_path / "frame.ncnn.param"
    path.write_text(TEXT)
    return path


def test_layers_are_read_with_their_blobs_and_parameters(param: Path):
    layers = read_param(read_content(param))
    assert [layer.kind for layer in layers][:2] == ["Input", "MemoryData"]
    assert layers[2].inputs == ("in0", "1")
    assert layers[3].whole(6) == 6
    assert layers[3].whole(9, 7) == 7


def test_blobs_get_the_graphs_names_and_nothing_else_changes(param: Path):
    rename_blobs(param, {"in0": "image", "out0": "mask_logits"})
    layers = read_param(read_content(param))
    assert layers[0].name == "in0"  # a layer, not a blob
    assert (layers[0].outputs, layers[2].inputs) == (("image",), ("image", "1"))
    assert layers[-1].outputs == ("mask_logits",)
    assert param.read_text().replace("mask_logits", "out0").replace("image", "in0") == TEXT


def test_a_blob_that_is_not_there_is_refused(param: Path):
    with pytest.raises(BundleError, match="has no blob out1"):
        rename_blobs(param, {"out1": "kernels"})


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("", "does not begin with 7767517"),
        ("7767517\n", "is no ncnn network"),
        (TEXT.replace("5 5", "6 5"), "has 5 layers and says 6"),
        (TEXT.replace("2 1 in0 1 2 0=1", "2 1 in0"), "the line of sub is cut off"),
        (TEXT.replace("0=2 1=1", "0=2 x=1"), "is no ncnn network"),
        (TEXT.replace("1 1 2 3", "-1 3 2 3"), "is cut off"),
    ],
)
def test_what_is_no_network_is_refused(param: Path, broken: str, why: str):
    param.write_text(broken)
    with pytest.raises(BundleError, match=why):
        read_param(read_content(param))


class TestWeights:
    def test_fit_their_network(self, param: Path, tmp_path: Path):
        path = tmp_path / "frame.ncnn.bin"
        path.write_bytes(WEIGHTS)
        check_weights(read_param(read_content(param)), read_content(path))

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (WEIGHTS[:-1], "damaged, of another network, or not fp32"),
            (WEIGHTS + bytes(4), "damaged, of another network, or not fp32"),
            (b"", "is not what ncnn shall run"),
            (CONSTANT + FP16 + WEIGHTS[16:], "the weights of conv are fp16 and not fp32"),
            (WEIGHTS[:-12] + FP16 + BIAS, "the weights of gemm are fp16 and not fp32"),
        ],
        ids=["cut", "longer", "empty", "half a convolution", "half an addend"],
    )
    def test_that_do_not_are_refused(self, param: Path, tmp_path: Path, content: bytes, why: str):
        path = tmp_path / "frame.ncnn.bin"
        path.write_bytes(content)
        with pytest.raises(BundleError, match=why):
            check_weights(read_param(read_content(param)), read_content(path))


@pytest.mark.parametrize(
    "spoilt",
    [("10=4", "10=9"), ("6=6", f"6={10**30}"), ("6=6", "6=-9"), ("6=6", "6=six")],
    ids=["unknown broadcast", "more than a file holds", "less than none", "no number"],
)
def test_parameters_that_cannot_be_are_refused(
    param: Path, tmp_path: Path, spoilt: tuple[str, str]
):
    param.write_text(TEXT.replace(*spoilt))
    weights = tmp_path / "frame.ncnn.bin"
    weights.write_bytes(WEIGHTS)
    with pytest.raises(BundleError, match=r"is not what ncnn shall run|it is damaged"):
        check_weights(read_param(read_content(param)), read_content(weights))
