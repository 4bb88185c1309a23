"""Whatever is handed over: one sentence with the next step, exit 2, and nothing written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import mobileinst
from forgery import edit_manifest

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.network.checkpoint import save_checkpoint


def refused(result, *said: str) -> None:
    """One sentence and one next step on stderr, nothing on stdout, no traceback, exit 2."""
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    sentence, next_step = result.stderr.strip().splitlines()
    assert sentence.startswith("error: ")
    assert sentence.endswith(".")
    assert next_step.endswith(".")
    assert "Traceback" not in result.stderr
    for words in said:
        assert words in sentence


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where nothing may appear."""
    folder = tmp_path / "out"
    yield folder
    assert not folder.exists()
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "none"], "none does not exist"),
        (["verify", "file"], "file is a file, not a folder"),
        (["verify", "folder"], "folder has no manifest.json"),
        (["verify", "x" * 300], "File name too long"),
        (["bench", "none"], "none does not exist"),
        (["inspect", "none"], "none cannot be read: No such file"),
        (["inspect", "folder"], "folder has no manifest.json"),
        (["inspect", "empty"], "empty holds no graph"),
        (["inspect", "file"], "file is not an ONNX file"),
        (["export", "mobileinst-nano", "-o", "out"], "there is no model 'mobileinst-nano'"),
        (["export", "file", "-o", "out"], "file: it is not TOML"),
        (["export", "folder", "-o", "out"], "there is no model 'folder'"),
        (["export", "none.safetensors", "-o", "out"], "there is no weights file"),
        (["export", "x" * 300, "-o", "out"], "File name too long"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_file_that_is_missing_or_another_thing(tmp_path, monkeypatch, out, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not what you think")
    (tmp_path / "empty").touch()
    refused(mobileinst(*arguments), said)


@pytest.mark.parametrize("command", ["verify", "bench", "profile", "optimize"])
def test_a_model_in_place_of_its_pair_is_told_how_to_get_one(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    result = mobileinst(command, "mobileinst-demo")
    refused(result, "mobileinst-demo does not exist")
    assert "`mobileinst export mobileinst-demo -o pair`" in result.stderr


def test_an_export_that_is_not_said_what_of_or_where_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(mobileinst("export"), "give either a model or --network")
    refused(mobileinst("export", "mobileinst-demo"), "where the pair goes")


@pytest.mark.parametrize("size", ["384", "384x641", "0x64", "64x64x3", "ax64", "8192x8192"])
def test_a_size_that_no_graph_can_have(tiny_toml, out, size):
    refused(mobileinst("export", tiny_toml, "--size", size, "-o", out), "size", "HEIGHTxWIDTH")


@pytest.mark.parametrize("opset", ["12", "21", "-3"])
def test_an_opset_that_nobody_writes(tiny_toml, out, opset):
    said = f"opset {opset} is outside 13 to 20"
    refused(mobileinst("export", tiny_toml, "--opset", opset, "-o", out), said)


class Trap:
    """A pickle of this creates a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["bare", "torch"])
def test_a_pickle_that_executes_is_refused_and_did_not(tiny_toml, tmp_path, out, how):
    weights, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    trap = {"backbone.weight": Trap(sprung)}
    if how == "bare":
        weights.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, weights)
    result = mobileinst("export", tiny_toml, "--weights", weights, "-o", out)
    refused(result, "pickle", "could run code")
    assert not sprung.exists()
    pickle.loads(pickle.dumps(trap))  # noqa: S301  to show that the trap is a real one
    assert sprung.exists()


def test_weights_of_another_network(tiny_toml, tiny_source, tmp_path, out):
    weights = tmp_path / "others.safetensors"
    other = torch.nn.Linear(2, 2).state_dict()
    from safetensors.torch import save_file

    save_file(other, weights)
    result = mobileinst("export", tiny_toml, "--weights", weights, "-o", out)
    refused(result, "missing: ", "unknown: bias, weight")
    save_checkpoint(weights, tiny_source.model)
    vis = "mobileinst-topformer-vis"
    refused(mobileinst("export", vis, "--weights", weights, "-o", out), "was trained as a model")


@pytest.mark.parametrize("content", [b"", b"\x08\x08", b"PK\x03\x04", bytes(100)])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_that_are_damaged(tiny_toml, tmp_path, out, suffix, content):
    weights = tmp_path / f"weights{suffix}"
    weights.write_bytes(content)
    refused(mobileinst("export", tiny_toml, "--weights", weights, "-o", out), str(weights))


def test_weights_given_twice(tmp_path, tiny_source, out):
    weights = tmp_path / "weights.safetensors"
    save_checkpoint(weights, tiny_source.model)
    result = mobileinst("export", weights, "--weights", weights, "-o", out)
    refused(result, "is a checkpoint already")


@pytest.mark.parametrize("command", ["verify", "bench", "inspect"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: edit_manifest(p, lambda m: m.update(stride=4), sign=False), "was edited"),
        (lambda p: edit_manifest(p, lambda m: m.update(schema=2)), "has schema 2"),
        (
            lambda p: edit_manifest(p, lambda m: m["golden"].update(file="../golden.npz")),
            "a path outside its folder",
        ),
        (lambda p: (p / "manifest.json").write_bytes(b"\x00"), "it is not whole JSON"),
        (lambda p: (p / "frame.onnx").write_bytes(b""), "frame.onnx is not the file"),
        (
            lambda p: shutil.copy(p / "mask_head.onnx", p / "frame.onnx"),
            "frame.onnx is not the file",
        ),
        (lambda p: (p / "golden.npz").unlink(), "golden.npz is missing"),
    ],
)
def test_a_pair_that_does_not_hold_together(pair: Path, command, spoil, said):
    spoil(pair)
    before = {p.name: p.stat().st_mtime_ns for p in pair.iterdir()}
    refused(mobileinst(command, pair), said)
    assert {p.name: p.stat().st_mtime_ns for p in pair.iterdir()} == before


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_picture_that_cannot_be_read(pair: Path, tmp_path, content):
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    refused(mobileinst("verify", pair, "--image", path), "picture.png")
    assert not (pair / "results").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--clip-lengths", "0"], "the values of T '0'"),
        (["--live-kernels", "6"], "6 live kernels"),
        (["--seconds", "inf"], "never end"),
        (["--device", "tpu"], "there is no device 'tpu'"),
        (["--core", "7", "--all"], "--all, --core speaks of a phone and the device is cpu"),
    ],
)
def test_a_measurement_that_cannot_be(pair: Path, options, said):
    refused(mobileinst("bench", pair, *options), said)
    assert not (pair / "results").exists()


def test_a_serial_without_a_phone(pair: Path):
    said = "--serial speaks of a phone and the device is cpu"
    refused(mobileinst("verify", pair, "--serial", "X"), said)


@pytest.mark.parametrize("place", ["/proc/pair", "/dev/null/pair"])
def test_a_place_where_nobody_may_write(tiny_toml, place):
    refused(
        mobileinst("export", tiny_toml, "-o", place, "--no-verify"), f"{place} cannot be written"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tiny_toml, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    result = mobileinst("export", tiny_toml, "-o", tmp_path / "locked" / "pair")
    refused(result, "cannot be written: Permission denied")


def test_a_folder_of_other_things(tiny_toml, tmp_path, monkeypatch):
    monkeypatch.setattr("mobileinst_deploy.network.loading.load_model", None)  # before any work
    refused(mobileinst("export", tiny_toml, "-o", tmp_path), "is not an older export")
    refused(mobileinst("export", tiny_toml, "-o", tiny_toml), "is a file, not a folder")


def test_a_disk_that_fills_up(tiny_toml, tmp_path):
    """A limit on file sizes stands for the end of the disk: the kernel refuses in the same way."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from mobileinst_deploy.cli import main; sys.argv[0] = 'mobileinst'; main()"
    )
    folder = tmp_path / "pair"
    command = [sys.executable, "-c", limited, "export", str(tiny_toml), "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"error: there is no space left to write {folder}." in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["model.toml"]


def test_a_full_disk_under_a_pair_that_is_verified_changes_no_verdict(pair: Path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    result = mobileinst("verify", pair, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["passed"] is True
    assert "there is no space left to write" in result.stderr
    assert "was not kept" in result.stderr


def test_a_place_for_the_report_is_looked_at_before_the_work(pair: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused(
        mobileinst("verify", pair, "--report", tmp_path / "file" / "x.json"), "cannot be written"
    )
    assert not (pair / "results").exists()


def test_a_pair_that_was_exported_from_weights_that_are_gone(
    tiny_source, pair: Path, exported: ExportBundle
):
    def trained(document) -> None:
        document["model"].update(trained=True, seed=None, checkpoint_sha256="00" * 32)

    edit_manifest(pair, trained)
    picture = Path(__file__).parent / "none.png"
    result = mobileinst("verify", pair, "--image", picture)
    refused(result, "the weights that this pair was exported from are not at hand")
