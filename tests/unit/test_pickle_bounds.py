"""What a pickle would make is bounded before it is made; what training leaves behind passes."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.network.pickle_bounds import MAX_LONG_INTEGERS, require_bounded
from mobileinst_deploy.network.weights_file import read_weights_file

SECONDS = 5.0


def archive(path: Path, instructions: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", instructions)
        file.writestr("archive/version", "3\n")
    return path


def nested(depth: int) -> bytes:
    """A tuple that holds the one before it twice, so that its values are 2**depth."""
    value: object = ("a",)
    for _ in range(depth):
        value = (value, value)
    return pickle.dumps(value, 2)[2:-1]


def as_a_key() -> bytes:
    return b"\x80\x02}" + nested(30) + b"K\x01s."


def as_a_path() -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00pcpathlib\nPosixPath\n" + nested(30) + b"\x85Rs."


def as_a_growing_path() -> bytes:
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000 + b"q\x01"
    doubled = b"0cpathlib\nPosixPath\nh\x01h\x01\x86Rq\x01" * 40
    return b"\x80\x02}X\x01\x00\x00\x00p" + text + doubled + b"s."


def as_a_deep_key() -> bytes:
    return b"\x80\x02}K\x01" + b"\x85" * 1_000_000 + b"K\x01s."


def as_colliding_keys() -> bytes:
    numbers = {i * (2**61 - 1): 0 for i in range(16, MAX_LONG_INTEGERS + 100)}
    return pickle.dumps(numbers, 2)


def as_endless_instructions() -> bytes:
    return b"\x80\x02" + b"N0" * 1_500_000 + b"}."


@pytest.mark.parametrize(
    "bomb",
    [
        as_a_key,
        as_a_path,
        as_a_growing_path,
        as_a_deep_key,
        as_colliding_keys,
        as_endless_instructions,
    ],
)
def test_a_few_bytes_that_stand_for_too_much_are_refused_at_once(
    tmp_path: Path, bomb: Callable[[], bytes]
):
    path = archive(tmp_path / "weights.pth", bomb())
    began = time.process_time()
    with pytest.raises(CheckpointError, match="not a complete PyTorch file"):
        read_weights_file(path)
    assert time.process_time() - began < SECONDS


def test_parts_that_lie_on_top_of_each_other_are_refused(tmp_path: Path):
    """Central entries of one and the same bytes: each would be read into memory of its own."""
    path = archive(tmp_path / "weights.pth", b"\x80\x02}.")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", bytes(4096))
        first = file.getinfo("archive/data/0")
        for number in range(1, 50):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            for name in ("header_offset", "file_size", "compress_size", "CRC", "external_attr"):
                setattr(again, name, getattr(first, name))
            file.filelist.append(again)
            file._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="on top of each other"):
        require_bounded(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_training_script_saves_passes(tmp_path: Path, legacy: bool):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": [2**100 + i for i in range(10)],
        "losses": [0.5] * 200_000,
    }
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    require_bounded(path)
    assert set(read_weights_file(path).states["model"]) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(2, device="meta"), "without values"),
        (torch.ones(2, 2).to_sparse(), "a sparse tensor"),
        (
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            "a nested tensor",
        ),
    ],
)
def test_a_tensor_without_plain_values_is_named(tmp_path: Path, tensor: torch.Tensor, kind: str):
    path = tmp_path / "weights.pth"
    torch.save({"a.weight": tensor}, path)
    with pytest.raises(CheckpointError, match=rf"holds a\.weight as .*{kind}"):
        read_weights_file(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pipe_that_nobody_writes_is_no_weights_file(tmp_path: Path, suffix: str):
    path = tmp_path / f"weights{suffix}"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="a pipe or a device"):
        read_weights_file(path)


def test_what_is_no_pickle_is_called_that(tmp_path: Path):
    path = tmp_path / "weights.pth"
    path.write_bytes(io.BytesIO(b"hello").getvalue())
    with pytest.raises(CheckpointError, match="it is no pickle"):
        read_weights_file(path)
