"""Upright pictures: a second pair from the same weights, and whoever runs it chooses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.config import ModelConfig, Tolerance
from mobileinst_deploy.data.shapes import CLASSES
from mobileinst_deploy.media.letterbox import turned_for
from mobileinst_deploy.network.checkpoint import save_checkpoint
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.workflows.subject import open_subject
from mobileinst_deploy.workflows.track import load_pair

CONFIG = ModelConfig(
    "topformer-tiny", CLASSES, (64, 128), num_queries=4, width=16, num_heads=2, pool_size=2
)
LIES, STANDS = (48, 90), (90, 48)


def mobileinst(*words: object):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("upright")
    loaded = build_loaded("tiny", CONFIG, None, seed=0, tolerance=Tolerance(atol=1e-2))
    save_checkpoint(folder / "tiny.safetensors", loaded.model, {})
    code, out, err = mobileinst(
        "export", folder / "tiny.safetensors", "-o", folder / "pair", "--upright", "--json"
    )
    assert code == 0, (out, err)
    made = json.loads(out)
    assert made["parity"]["passed"]
    assert made["upright"]["parity"]["passed"]
    assert Path(made["upright"]["folder"]).name == "pair-upright"
    rng = np.random.default_rng(0)
    for name, size in (("lies", LIES), ("stands", STANDS)):
        (folder / name).mkdir()
        for t in range(2):
            picture = rng.integers(0, 256, (*size, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{t}.png"), picture)
    return folder


@pytest.mark.parametrize(
    ("picture", "size"), [(LIES, (64, 128)), (STANDS, (128, 64)), ((50, 50), (64, 128))]
)
def test_an_input_is_turned_for_a_picture_of_the_other_orientation(picture, size):
    assert turned_for((64, 128), picture) == size
    assert turned_for((128, 64), picture) == size


def test_one_checkpoint_gives_pairs_for_both_orientations(folder):
    pair = load_pair(folder / "pair")
    assert pair.input_size == (64, 128)
    assert pair.upright is not None
    assert pair.upright.input_size == (128, 64)
    assert pair.upright.bundle.checkpoint_sha256 == pair.bundle.checkpoint_sha256


@pytest.mark.parametrize(("name", "chosen"), [("lies", "pair"), ("stands", "pair-upright")])
def test_run_chooses_the_pair_by_the_clip(folder, tmp_path, name, chosen):
    code, out, err = mobileinst(
        "run", folder / "pair", folder / name, "-o", tmp_path / "out", "--json"
    )
    assert code == 0, (out, err)
    bundle = load_pair(folder / chosen).bundle
    assert json.loads(out)["bundle_sha256"] == bundle.sha256


@pytest.mark.parametrize("model", ["tiny.safetensors", "pair"])
def test_evaluation_gives_upright_pictures_to_the_turned_input(folder, model):
    subject = open_subject(str(folder / model), upright=True)
    assert subject.fitting(LIES).config.input_size == (64, 128)
    assert subject.fitting(STANDS).config.input_size == (128, 64)
    assert open_subject(str(folder / model)).fitting(STANDS).config.input_size == (64, 128)


def test_a_square_input_has_no_orientation(folder, tmp_path):
    code, _, err = mobileinst(
        *("export", folder / "tiny.safetensors", "-o", tmp_path / "pair"),
        *("--size", "64x64", "--upright"),
    )
    assert code == 2
    assert "square" in err
    assert not (tmp_path / "pair").exists()


def test_a_pair_alone_cannot_be_evaluated_upright(folder):
    """The upright pair has no other one beside it."""
    code, _, err = mobileinst(
        *("evaluate", folder / "pair-upright", "--upright", "--dataset", "coco"),
        *("--images", folder, "--annotations", folder / "none.json"),
    )
    assert code == 2
    assert "pair-upright-upright does not exist" in err
