"""`mobileinst evaluate` as a user meets it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.data.shapes import CLASSES
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE, write_shapes
from mobileinst_deploy.network.checkpoint import save_checkpoint
from mobileinst_deploy.network.loading import build_loaded

CONFIG = replace(TINY, classes=CLASSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    write_shapes(folder, "test", 2, 3, (48, 80))
    loaded = build_loaded("tiny", CONFIG, None, seed=0, tolerance=Tolerance())
    save_checkpoint(folder / "tiny.safetensors", loaded.model, {})
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def mobileinst(folder: Path, *words: object, form: str = "coco"):
    annotations = COCO_FILE if form == "coco" else YTVIS_FILE
    given = [str(word) for word in words]
    if "--annotations" not in given:
        given += ["--annotations", str(folder / annotations)]
    if "--images" not in given:
        given += ["--images", str(folder / FRAMES)]
    if "--dataset" not in given:
        given += ["--dataset", form]
    model = str(folder / "tiny.safetensors")
    result = CliRunner().invoke(app, ["evaluate", model, *given])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_pictures_give_a_table_and_eval_json(folder):
    code, out, err = mobileinst(folder)
    assert code == 0
    for word in ("AP50", "APs", "AR100", "6 pictures", "instances.json"):
        assert word in out
    assert "eval.json" in err
    document = json.loads((folder / "results" / "cpu-pytorch-tiny" / "eval.json").read_text())
    assert document["runtime"] == "pytorch"
    assert 0 <= document["pictures"]["AP"] <= 1


def test_clips_are_measured_at_every_t_asked_for(folder, tmp_path):
    code, out, err = mobileinst(
        folder, "-T", "1,2,auto", "--json", "--report", tmp_path / "out", form="ytvis"
    )
    assert code == 0
    document = json.loads(out)
    assert list(document["clips"]) == ["1", "2", "auto"]
    assert document["clips"]["1"]["keyframes"] == 6
    assert document["clips"]["2"]["keyframes"] == 4
    assert "T = auto" in err
    kept = tmp_path / "out" / "cpu-pytorch-tiny" / "eval.json"
    assert json.loads(kept.read_text()) == document


def test_what_was_left_out_is_told(folder, tmp_path):
    document = json.loads((folder / COCO_FILE).read_text())
    document["annotations"][0]["segmentation"] = []
    (tmp_path / "some.json").write_text(json.dumps(document))
    code, _, err = mobileinst(folder, "--annotations", tmp_path / "some.json", "--report", tmp_path)
    assert code == 0
    assert "Left out: 1 annotation without a mask" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--dataset", "imagenet"), "imagenet"),
        (("-T", "0"), "0"),
        (("-T", "1,x"), "x"),
        (("-T", ""), "neither auto nor"),
        (("--device", "toaster"), "toaster"),
        (("--annotations", "none.json"), "none.json"),
        (("--images", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(folder, words, told):
    code, out, err = mobileinst(folder, *words, form="ytvis")
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


def test_an_annotation_file_cut_short_is_refused(folder, tmp_path):
    (tmp_path / "cut.json").write_bytes((folder / COCO_FILE).read_bytes()[:-100])
    code, _, err = mobileinst(folder, "--annotations", tmp_path / "cut.json")
    assert code == 2
    assert "not whole JSON" in err


def test_the_wrong_form_of_annotations_is_refused(folder):
    code, _, err = mobileinst(folder, "--annotations", folder / COCO_FILE, form="ytvis")
    assert code == 2
    assert "videos" in err


def test_the_papers_association_is_measured_beside_the_default(folder, tmp_path):
    place = ("--report", tmp_path / "out", "--json", "-T", "1")
    assert mobileinst(folder, *place, form="ytvis")[0] == 0
    code, out, err = mobileinst(folder, *place, "--association", "consecutive", form="ytvis")
    assert code == 0
    assert "T = 1 consecutive" in err
    clips = json.loads(out)["clips"]
    assert list(clips) == ["1", "1 consecutive"]
    assert (clips["1"]["settings"]["memory"], clips["1 consecutive"]["settings"]["memory"]) == (
        30,
        0,
    )


def test_clips_have_figures_by_size(folder, tmp_path):
    code, out, _ = mobileinst(folder, "-T", "1", "--json", "--report", tmp_path, form="ytvis")
    assert code == 0
    block = json.loads(out)["clips"]["1"]
    assert {"APs", "APm", "APl"} <= set(block)
    assert block["APl"] is None  # no object of 256 pixels squared in pictures of 48x80


def test_an_association_that_is_none_is_refused(folder):
    code, _, err = mobileinst(folder, "--association", "hungarian", form="ytvis")
    assert code == 2
    assert "no association 'hungarian'" in err
