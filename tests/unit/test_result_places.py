"""Every result has one place, and a place that cannot be written loses no result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.workflows.results import pair_place, place


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("kind", "device", "runtime", "wanted"),
    [
        ("parity", "cpu", "onnxruntime 1.32.0", "cpu-onnxruntime-plain/parity.json"),
        ("latency", "adb:R58M123", "ncnn 20250503", "adb-R58M123-ncnn-plain/latency.json"),
        ("eval", "cuda:0", "pytorch", "cuda-0-pytorch-plain/eval.json"),
        (
            "latency",
            "adb:127.0.0.1:5555 (emulated)",
            "onnxruntime 1.32.0",
            "adb-127.0.0.1-5555-onnxruntime-plain/latency.json",
        ),
        ("parity", "../..", "/", "unnamed-unnamed-plain/parity.json"),
    ],
)
def test_the_place_says_device_runtime_and_form(
    exported: ExportBundle, kind, device, runtime, wanted
):
    assert pair_place(kind, exported, device, runtime).path == exported.folder / "results" / wanted


@pytest.mark.parametrize(
    ("steps", "form"),
    [
        ((), "plain"),
        (("fold-batchnorm", "winograd"), "optimized"),
        (("half-weights",), "half"),
        (("int8", "winograd"), "int8"),
        (("fold-batchnorm", "half-weights"), "optimized-half"),
    ],
)
def test_a_pairs_form_is_what_was_done_to_it(exported: ExportBundle, steps, form):
    assert replace(exported, optimized=steps).form == form


def test_a_report_is_a_file_or_a_folder_of_results(tmp_path: Path):
    def path(report: Path) -> Path:
        return place("eval", tmp_path, "cpu", "pytorch", "best", report).path

    assert path(tmp_path / "ap.json") == tmp_path / "ap.json"
    (tmp_path / "odd.json").mkdir()
    below = Path("cpu-pytorch-best") / "eval.json"
    assert path(tmp_path / "new") == tmp_path / "new" / below
    assert path(tmp_path / "odd.json") == tmp_path / "odd.json" / below


def test_a_result_is_kept_in_its_place(tmp_path: Path):
    kept = place("eval", tmp_path, "cpu", "pytorch", "best").keep({"AP": 0.5})
    assert (kept.problem, kept.note) == (None, None)
    assert json.loads(kept.path.read_text()) == {"AP": 0.5}


def test_where_the_place_cannot_be_written_the_result_lies_with_the_user(tmp_path, own_state):
    (tmp_path / "pair").write_text("a file where a folder should be")
    where = place("eval", tmp_path / "pair", "cpu", "pytorch", "best")
    where.check()
    kept = where.keep({"AP": 0.5})
    assert own_state in kept.path.parents
    assert json.loads(kept.path.read_text()) == {"AP": 0.5}
    assert str(kept.path) in kept.note
    assert "cannot be written" in kept.note
    other = place("eval", tmp_path / "b" / "pair", "cpu", "pytorch", "best")
    assert other.spare != where.spare, "two pairs of one name do not overwrite each other"


def test_what_can_be_kept_nowhere_is_told_and_fails_nothing(tmp_path: Path, own_state: Path):
    own_state.write_text("a file")
    (tmp_path / "pair").write_text("a file")
    kept = place("eval", tmp_path / "pair", "cpu", "pytorch", "best").keep({"AP": 0.5})
    assert kept.path is None
    assert "was not kept" in kept.note


def test_a_place_that_somebody_named_must_be_writable_before_the_work(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        place("eval", tmp_path, "cpu", "pytorch", "x", tmp_path / "file" / "a.json").check()
