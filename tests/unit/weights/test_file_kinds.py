"""Something else under a weights file's name is told for what it is."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.network.weights_file import read_weights_file

STATE = {"a": torch.zeros(3)}


def script(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for part in ("data.pkl", "constants.pkl", "code/__torch__/net.py"):
            file.writestr(f"net/{part}", "")


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weights/model.txt", "x")


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("model.pth"), io.BytesIO())


def starting(with_: bytes):
    return lambda path: path.write_bytes(with_ + bytes(600))


KINDS = {
    "a TorchScript program": (script, "torch.jit.load"),
    "a zip archive that torch did not write": (archive, "Unpack it"),
    "a tar archive": (tar, "Unpack it"),
    "a gzip archive": (starting(b"\x1f\x8b\x08"), "Unpack it"),
    "what Git LFS leaves in place of a file": (
        starting(b"version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "a page of HTML or XML": (starting(b"<!DOCTYPE html>"), "Download the file itself"),
    "an HDF5 file": (starting(b"\x89HDF\r\n\x1a\n"), "PyTorch or safetensors"),
    "a safetensors file": (lambda path: save_file(STATE, path), ".safetensors"),
}


@pytest.mark.parametrize(("kind", "made"), KINDS.items(), ids=KINDS)
def test_what_torch_did_not_save_is_told(tmp_path: Path, kind, made):
    write, step = made
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(CheckpointError) as refused:
        read_weights_file(path)
    assert f"{path} is {kind}" in refused.value.cause
    assert step in refused.value.next_step


def test_a_file_of_torch_under_the_name_of_safetensors_is_told(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    torch.save(STATE, path)
    with pytest.raises(CheckpointError, match=r"a file that torch.save wrote.*ends in \.pth"):
        read_weights_file(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saved_is_read(tmp_path: Path, legacy):
    path = tmp_path / "weights.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    assert list(read_weights_file(path).states) == [""]
