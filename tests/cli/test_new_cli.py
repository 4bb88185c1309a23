"""Own data, from three classes in COCO's form to a verified pair: what docs/own-data.md says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.bundle import load_bundle
from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.core.zoo import load_model_toml, zoo_folder
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE, write_shapes
from mobileinst_deploy.network import build_model
from mobileinst_deploy.network.checkpoint import save_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
#: Names for the page's classes; the pictures show drawn shapes, which no one need label.
CLASSES = {"disc": "cup", "square": "plate", "triangle": "spoon"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The page's folder `kitchen`: pictures and annotations of three classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, split in (("train", "train"), ("val", "val")):
        write_shapes(tmp_path / part, split, 6 if part == "train" else 2, 2, (48, 80))
        for name in (COCO_FILE, YTVIS_FILE):
            document = json.loads((tmp_path / part / name).read_text())
            kept = [c for c in document["categories"] if c["name"] in CLASSES]
            numbers = {c["id"] for c in kept}
            document["categories"] = [{**c, "name": CLASSES[c["name"]]} for c in kept]
            document["annotations"] = [
                a for a in document["annotations"] if a["category_id"] in numbers
            ]
            folder = tmp_path / "kitchen"
            folder.mkdir(exist_ok=True)
            ending = "" if name == COCO_FILE else "-clips"
            (folder / f"{part}{ending}.json").write_text(json.dumps(document))
    (tmp_path / "train" / FRAMES).rename(tmp_path / "kitchen" / "images")
    (tmp_path / "val" / FRAMES).rename(tmp_path / "kitchen" / "val-images")
    video = cv2.VideoWriter(
        str(tmp_path / "kitchen" / "cooking.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (80, 48)
    )
    for frame in sorted((tmp_path / "kitchen" / "val-images" / "00000").iterdir()):
        video.write(cv2.imread(str(frame)))
    video.release()
    return tmp_path


def mobileinst(*words: object):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def commands_of_the_page() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    found = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("mobileinst ")]
    assert [words[0] for words in found] == [
        "new", "train", "train", "evaluate", "export", "verify", "run", "predict"
    ]  # fmt: skip
    return found


def test_following_the_page_leads_to_a_verified_pair(here):
    for words in commands_of_the_page():
        # Two steps in place of hours; the page's own words are all kept.
        short = ["--set", "stages.0.epochs=0", "--set", "stages.0.iterations=2"]
        short += ["--set", "stages.0.batch=2", "--set", "data.workers=0"]
        if words[:2] == ["train", "runs/kitchen"]:
            words = [*words, *short]
        code, out, err = mobileinst(*words)
        assert code == 0, (words, out, err)
    run = here / "runs" / "kitchen"
    parity = next((run / "pair" / "results").rglob("parity.json"))
    assert json.loads(parity.read_text())["passed"]
    (measured,) = (run / "results").rglob("eval.json")
    assert json.loads(measured.read_text())["trained"]
    assert (here / "followed" / "tracks.json").is_file()
    assert json.loads((here / "results.json").read_text()) is not None
    assert "</svg>" in (run / "training.svg").read_text()


def new(here: Path, *more: object):
    return new_in(here, "runs/x", *more)


def new_in(here: Path, folder: object, *more: object):
    return mobileinst(
        *("new", folder, "--annotations", "kitchen/train.json", "--images", "kitchen/images"),
        *("--like", "mobileinst-demo", *more),
    )


def test_the_model_has_the_classes_that_are_annotated(here):
    document = json.loads((here / "kitchen" / "train.json").read_text())
    document["categories"].insert(0, {"id": 77, "name": 'a "quoted" one, with no object'})
    document["categories"][-1]["name"] = 'löffel "groß"'
    (here / "kitchen" / "train.json").write_text(json.dumps(document))
    code, out, _ = new(here, "--json")
    assert code == 0, out
    made = json.loads(out)
    model = tomllib.loads((here / "runs" / "x" / "model.toml").read_text())
    assert model["config"]["classes"] == made["classes"]
    assert set(made["classes"]) <= {"cup", "plate", 'löffel "groß"'}
    assert sum(made["objects"].values()) == len(document["annotations"])
    assert model["config"]["backbone"] == "topformer-tiny"


def test_clips_get_a_video_stage_with_query_passing(here):
    code, out, _ = new(here, "--dataset", "ytvis", "--annotations", "kitchen/train-clips.json")
    assert code == 0, out
    (stage,) = tomllib.loads((here / "runs" / "x" / "train.toml").read_text())["stages"]
    assert (stage["kind"], stage["query_passing"]) == ("video", True)


def test_nothing_is_replaced(here):
    assert new(here)[0] == 0
    before = (here / "runs" / "x" / "train.toml").read_bytes()
    code, _, err = new(here)
    assert code == 2
    assert "there already" in err
    assert (here / "runs" / "x" / "train.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--like", "mobileinst-nothing"), "mobileinst-nothing"),
        (("--images", "nowhere"), "nowhere"),
        (("--annotations", "none.json"), "none.json"),
        (("--dataset", "voc"), "voc"),
        (("--validation-annotations", "none.json"), "none.json"),
        (("--validation-images", "kitchen/val-images"), "--validation-annotations"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(here, words, told):
    code, out, err = new(here, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert not (here / "runs").exists()


def test_a_run_that_was_not_exported_says_so(here):
    assert new(here)[0] == 0
    code, _, err = mobileinst("verify", "runs/x")
    assert code == 2
    assert "pair does not exist" in err


def test_a_run_whose_recipe_lies_elsewhere_is_a_run_all_the_same(here):
    """`train --config ... -o runs/y` leaves weights and a log there, and no model.toml."""
    (here / "runs" / "y").mkdir(parents=True)
    (here / "runs" / "y" / "training.csv").write_text("iteration\n")
    config = replace(load_model_toml("mobileinst-demo").config, input_size=(64, 128))
    save_checkpoint(here / "runs" / "y" / "model.safetensors", build_model(config), {})
    code, out, err = mobileinst("export", "runs/y", "--no-verify")
    assert code == 0, (out, err)
    assert load_bundle(here / "runs" / "y").model_id == "y"


def test_a_folder_whose_name_is_not_utf8_is_refused(here):
    odd = here / os.fsdecode(b"run\xff")
    code, _, err = new_in(here, odd)
    assert (code, "not UTF-8" in err) == (2, True), err
    assert not odd.exists()


def test_the_next_command_is_one_that_can_be_typed(here):
    shutil.copytree(zoo_folder() / "mobileinst-demo", here / "own model")
    toml = here / "own model" / "model.toml"
    toml.write_text(toml.read_text().replace('"mobileinst-demo"', '"own"', 1))
    code, out, _ = new_in(here, here / "a run", "--like", here / "own model")
    assert code == 0
    words = shlex.split(out.split("Next: ")[1])
    assert words[:3] == ["mobileinst", "train", str(here / "a run")]
    assert (here / "own model").samefile(Path(words[4]).parent)


@pytest.mark.parametrize("there", [False, True])
def test_a_recipe_that_cannot_be_written_leaves_no_model_either(here, monkeypatch, there):
    from mobileinst_deploy.workflows import new as workflow

    write = workflow._write

    def full(path, text):
        if path.name == "train.toml":
            raise OutputError("there is no space left", "Free some space", str(path))
        write(path, text)

    monkeypatch.setattr(workflow, "_write", full)
    folder = here / "runs" / "mine"
    if there:
        folder.mkdir(parents=True)
        (folder / "notes.txt").touch()
    words = ("--annotations", "kitchen/train.json", "--images", "kitchen/images")
    code, _, said = mobileinst("new", folder, *words, "--like", "mobileinst-demo")
    assert code == 2
    assert "no space left" in said
    left = [p.name for p in (here / "runs").rglob("*")] if (here / "runs").exists() else []
    assert left == (["mine", "notes.txt"] if there else [])
