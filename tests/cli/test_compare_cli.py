"""compare as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import mobileinst

from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.workflows import compare, compare_figure
from mobileinst_deploy.workflows.history import Page

BRIEF = ("--runs", "8", "--warmup", "0", "--seconds", "0", "--clip-lengths", "1")


@pytest.fixture
def other(pair: Path) -> Path:
    return shutil.copytree(pair, pair.with_name("other"))


def test_two_pairs_are_compared_for_people_and_for_scripts(pair: Path, other: Path):
    done = mobileinst("compare", pair, other, *BRIEF, "--to", other, "--json")
    assert done.exit_code == 4  # eight runs are not fifty
    document = json.loads(done.stdout)
    assert document["to"] == "other"
    assert [row["name"] for row in document["rows"]] == ["pair", "other"]
    assert document["rows"][1]["latency"]["ratios"][0]["ratio"] == 1
    assert "run in turn" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "{missing}"), "none of the pairs"),
        (("--plot", "{folder}/p.png"), ".svg"),
        (("--plot", "{folder}/p.svg"), "was evaluated"),
        (("--device", "tpu"), "tpu"),
        (("--serial", "R58"), "--serial"),
        (("{missing}",), "missing"),
        (("--clip-lengths", "0"), "values of T"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_a_comparison_that_cannot_be_is_refused(pair: Path, other: Path, tmp_path, words, said):
    words = [word.format(missing=tmp_path / "missing", folder=tmp_path) for word in words]
    done = mobileinst("compare", pair, other, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not list(tmp_path.glob("*.svg"))


def test_the_reference_may_be_named_by_its_run(pair: Path, other: Path):
    run = other.parent / "run"
    run.mkdir()
    (run / "training.csv").write_text("iteration\n")
    other.rename(run / "pair")
    done = mobileinst("compare", pair, run, *BRIEF, "--to", run, "--json")
    assert done.exit_code == 4, done.stderr
    assert json.loads(done.stdout)["to"] == "run"
    twice = mobileinst("compare", run, run / "pair", *BRIEF)
    assert (twice.exit_code, "named twice" in twice.stderr) == (2, True)


def test_a_plot_that_fails_loses_no_measurement(pair: Path, other: Path, tmp_path, monkeypatch):
    def full(found, path):
        raise OutputError("there is no space left", "Free some")

    monkeypatch.setattr(compare_figure, "write_plot", full)
    monkeypatch.setattr(compare_figure, "check_plottable", lambda precisions: None)
    done = mobileinst("compare", pair, other, *BRIEF, "--plot", tmp_path / "p.svg", "--json")
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert len(document["rows"]) == 2
    assert "no space left" in document["error"]["cause"]


def test_a_record_that_the_history_does_not_take_is_told(pair: Path, other: Path, monkeypatch):
    monkeypatch.setattr(Page, "keep", lambda self, record: "the disk is full")
    done = mobileinst("compare", pair, other, *BRIEF, "--json")
    assert "not in the history: the disk is full" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["forgotten"] == "the disk is full"


def test_half_precision_says_that_it_is_not_the_papers_protocol(pair: Path):
    entries = compare.open_entries([pair], ["onnxruntime", "ncnn-fp16"])
    assert [entry.pair.arithmetic for entry in entries] == ["fp32", "fp16"]
