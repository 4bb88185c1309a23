"""Inputs that hostile and merely odd users invented: each ends in a sentence, not in a bug."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import onnx
import pytest
from commands import mobileinst
from forgery import edit_graph
from onnx import TensorProto, helper

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.errors import EXIT_BUG
from mobileinst_deploy.training.config import read_train_config

RECIPE = """
model = "mobileinst-demo"
[data]
frames = 4
[[stages]]
kind = "image"
iterations = 2
batch = 2
lr = 1e-3
"""


@pytest.fixture
def pair(exported: ExportBundle, tmp_path: Path) -> Path:
    return shutil.copytree(exported.folder, tmp_path / "pair")


def told(result, code: int, *words: str) -> None:
    """One printable sentence and one next step, with the exit code."""
    assert result.exit_code == code, result.output
    sentence, next_step = result.stderr.strip().splitlines()
    assert sentence.startswith("error: ")
    assert (sentence + next_step).isprintable()
    assert len(sentence + next_step) < 2000
    for word in words:
        assert word in sentence


def put_loop(model: onnx.ModelProto) -> None:
    """A loop of 2**62 rounds beside the network."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("going", TensorProto.BOOL, [])],
    )
    times = helper.make_tensor("times", TensorProto.INT64, [], [2**62])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    model.graph.initializer.extend([times, yes])
    model.graph.node.append(helper.make_node("Loop", ["times", "yes"], [], body=body))


@pytest.mark.parametrize("command", ["profile", "verify", "bench", "inspect"])
def test_a_loop_without_an_end_is_not_begun(pair: Path, command: str):
    edit_graph(pair, "frame", put_loop)
    told(mobileinst(command, pair), 2, "holds a loop, which may never end")


def put_gather(model: onnx.ModelProto) -> None:
    """A look-up far beyond a table's end: nothing is wrong until it runs."""
    far = helper.make_tensor("far", TensorProto.INT64, [1], [2**40])
    model.graph.initializer.append(far)
    outputs = [output.name for output in model.graph.output]
    (last,) = (n for n in model.graph.node if outputs[0] in n.output)
    last.output[list(last.output).index(outputs[0])] = "before"
    model.graph.node.append(
        helper.make_node("Gather", ["before", "far"], ["looked"], axis=0, name="far")
    )
    model.graph.node.append(helper.make_node("Add", ["before", "looked"], [outputs[0]]))


def test_a_graph_that_fails_in_the_midst_of_a_profile_is_the_runtimes_failure(pair: Path):
    edit_graph(pair, "frame", put_gather)
    told(mobileinst("profile", pair, "--runs", "1"), 3, "ONNX Runtime failed")
    assert not list((pair / "results").rglob("profile.json"))


SETS = {
    "an index of 5000 digits": "stages." + "1" * 5000 + ".batch=2",
    "an index beyond": "stages.7.batch=2",
    "an index below": "stages.-1.batch=2",
    "other digits": "stages.\u0663.batch=2",
    "no field": "=3",
    "no value": "stages.0.batch=",
    "no equals sign": "stages.0.batch",
    "dots alone": "..=1",
    "a name that is none": "stages.0.\x1b[31m=1",
    "a value of 5000 digits": "stages.0.batch=" + "9" * 5000,
    "deep": ".".join(["data"] * 5000) + "=1",
    "a deep value": "data.frames=" + "[" * 5000,
    "a table for a number": "stages.0.batch={a=1}",
    "a field below a number": "stages.0.batch.deeper=1",
    "two lines": "ema=0.5\nmodel='x'",
    "half a surrogate": 'model="\udc80"',
    "an unknown field": "nothing=1",
}


@pytest.mark.parametrize("change", SETS)
def test_an_odd_change_of_a_recipe_is_refused(tmp_path: Path, change: str):
    recipe = tmp_path / "train.toml"
    recipe.write_text(RECIPE)
    read_train_config(recipe)
    words = ("train", "--config", recipe, "-o", tmp_path / "run", "--set", SETS[change])
    told(mobileinst(*words), 2)
    assert not (tmp_path / "run").exists()


LONG = {
    "a long name": "x" * 300,
    "a long path": "/".join(["y" * 100] * 60),
    "a path beyond every system": "/".join(["z" * 200] * 5000),
}
_EVALUATE = ("evaluate", "{pair}", "--dataset", "coco")
TAKING = {
    "verify": ["verify", "{}"],
    "bench": ["bench", "{}"],
    "profile": ["profile", "{}"],
    "inspect": ["inspect", "{}"],
    "export": ["export", "{}", "-o", "{out}"],
    "output of export": ["export", "mobileinst-demo", "-o", "{}"],
    "report of bench": ["bench", "{pair}", "--report", "{}"],
    "picture": ["run", "{pair}", "{}", "-o", "{out}"],
    "output of run": ["run", "{pair}", "{pair}/golden.npz", "-o", "{}"],
    "recipe": ["train", "--config", "{}", "-o", "{out}"],
    "weights": ["export", "mobileinst-demo", "--weights", "{}", "-o", "{out}"],
    "annotations": [*_EVALUATE, "--annotations", "{}", "--images", "."],
    "pictures": [*_EVALUATE, "--annotations", "x.json", "--images", "{}"],
    "page": ["report", "history", "-o", "{}"],
    "history": ["history", "--merge", "{}"],
    "baseline": ["bench", "{pair}", "--against", "{}"],
    "plot": ["compare", "{pair}", "{pair}", "--plot", "{}"],
}  # fmt: skip


@pytest.mark.parametrize("length", LONG)
@pytest.mark.parametrize("taking", TAKING)
def test_a_path_longer_than_the_system_takes_is_said_in_words(
    pair: Path, tmp_path: Path, monkeypatch, length: str, taking: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    given = {"pair": str(pair), "out": str(tmp_path / "out")}
    result = mobileinst(*(word.format(LONG[length], **given) for word in TAKING[taking]))
    told(result, 2)
    assert "Errno" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a\nb", "a\r\x1b[2Jb", "\u202eb", os.fsdecode(b"\xff\xfe")])
def test_a_line_break_in_an_outputs_path_is_shown_as_an_escape(
    pair: Path, tmp_path: Path, monkeypatch, name: str
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = tmp_path / name / "latency.json"
    quick = ("--runs", "1", "--seconds", "0", "--warmup", "0", "--clip-lengths", "1")
    done = mobileinst("bench", pair, "--report", place, *quick, "--json")
    assert done.exit_code == 4, done.output
    assert json.loads(place.read_text())["valid"] is False
    assert done.stderr.replace("\n", "").isprintable()
    assert json.loads(done.stdout)["error"]["exit_code"] != EXIT_BUG
