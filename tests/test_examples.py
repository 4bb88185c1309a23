"""The examples run as their first lines say, and say what `mobileinst run` says."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import mobileinst

import mobileinst_deploy
from mobileinst_deploy.data.shapes import ShapesClip, clip_seed

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
#: Run by tests of their own: tests/device and tests/test_project_files.py.
ELSEWHERE = {"app_loop.py", "app_loop.c", "phone.sh", "ci/parity.yml"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's pair: its weights find something, so that the examples have much to say."""
    folder = tmp_path_factory.mktemp("demo") / "pair"
    mobileinst_deploy.export("mobileinst-demo", folder, verify=False)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures of shapes."""
    folder = tmp_path_factory.mktemp("clip")
    shapes = ShapesClip(clip_seed("val", 41), 72, (192, 320))
    for index, frame in enumerate(islice(shapes, 7)):
        cv2.imwrite(str(folder / f"{index}.png"), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    return folder


def run(example: str, *arguments: Path | str) -> str:
    """Run an example as its docstring says, and return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=300
    ).stdout


def test_every_example_is_run_by_a_test_and_described():
    here = {p.relative_to(EXAMPLES).as_posix() for p in EXAMPLES.rglob("*") if p.is_file()}
    here = {name for name in here if "__pycache__" not in name}
    assert here - ELSEWHERE == {"README.md", "picture.py", "clip.py", "first_look.ipynb"}
    described = set(re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text()))
    assert here - {"README.md"} <= described


@pytest.mark.parametrize("example", ["picture.py", "clip.py", "app_loop.py", "phone.sh"])
def test_an_example_without_arguments_says_what_it_takes(example: str):
    start = ["bash"] if example.endswith(".sh") else [sys.executable]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*start, str(EXAMPLES / example)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert example in done.stderr
    assert "PAIR" in done.stderr or "pair" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_picture_in_ten_lines(demo: Path, clip: Path, tmp_path: Path):
    said = run("picture.py", demo, clip / "0.png", tmp_path / "overlay.png").splitlines()
    found = mobileinst_deploy.segment(
        mobileinst_deploy.load_pair(demo), cv2.imread(str(clip / "0.png"))[..., ::-1]
    )
    assert len(found.classes) >= 3
    assert [line.partition(":")[0] for line in said] == list(found.classes)
    changed = (cv2.imread(str(tmp_path / "overlay.png")) != cv2.imread(str(clip / "0.png"))).any(-1)
    assert changed.any()
    assert not changed[~found.masks.any(axis=0)].any()


def test_a_clip_gives_the_paths_of_its_objects(demo: Path, clip: Path, tmp_path: Path):
    run("clip.py", demo, clip, tmp_path / "paths.csv")
    with (tmp_path / "paths.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert mobileinst("run", demo, clip, "-o", tmp_path / "out").exit_code == 0
    tracks = json.loads((tmp_path / "out" / "tracks.json").read_text())
    assert {int(row["identity"]) for row in rows} == {track["id"] for track in tracks}
    assert {row["frame"] for row in rows if row["keyframe"] == "True"} == {"0", "3", "6"}
    assert all(0 <= float(row["x"]) < 320 and 0 <= float(row["y"]) < 192 for row in rows)


def test_the_notebook_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch):
    notebook = json.loads((EXAMPLES / "first_look.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells), "outputs are not kept: they go out of date"
    monkeypatch.chdir(EXAMPLES)
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
    sheet = names["sheet"]
    assert isinstance(sheet, np.ndarray)
    assert sheet.shape == (2 * 192, 3 * 320, 3)
