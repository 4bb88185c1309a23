"""The loop: it learns, always the same, in pieces, in two processes and from other weights."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from training_run import (
    CONFIG,
    HELD_OUT,
    IMAGE,
    MODEL,
    RECIPE,
    SOURCE,
    TRAIN,
    VIDEO,
    losses,
    recipe,
)

from mobileinst_deploy.network import build_model
from mobileinst_deploy.network.checkpoint import load_checkpoint, load_weights
from mobileinst_deploy.training import loop
from mobileinst_deploy.training.beginning import parameter_groups
from mobileinst_deploy.training.ema import Ema
from mobileinst_deploy.training.loop import train
from mobileinst_deploy.training.sources import CLASSES, ShapesSource
from mobileinst_deploy.training.validate import picture_ap


def test_a_run_ends_with_weights_a_log_and_metrics(finished):
    report, folder = finished
    assert report.iterations == 8
    assert report.samples == 4 * 2 + 4 * 1
    assert set(report.metrics) >= {"AP", "AP50", "AP75"}
    config, _ = load_checkpoint(folder / "model.safetensors")
    assert config == MODEL
    rows = losses(folder)
    assert [row[0] for row in rows] == [str(i) for i in range(1, 9)]
    assert [bool(row[-1]) for row in rows] == [False] * 4 + [True] * 4
    assert sorted(p.name for p in folder.iterdir()) == [
        "model.safetensors",
        "training.csv",
        "training.pt",
        "training.svg",
    ]


def test_the_same_run_gives_the_same_weights(finished, tmp_path):
    train(CONFIG, MODEL, SOURCE, tmp_path, held_out=HELD_OUT)
    _, folder = finished
    assert losses(tmp_path) == losses(folder)
    first, second = (load_checkpoint(f / "model.safetensors")[1] for f in (folder, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def fresh_engine():
    """The engine keeps the first precision of a process; a user has one run in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_mixed_precision_trains_too(tmp_path, finished, fresh_engine):
    stages = (replace(IMAGE, iterations=1), replace(VIDEO, iterations=1))
    report = train(replace(CONFIG, stages=stages, precision="bf16"), MODEL, SOURCE, tmp_path)
    _, whole = finished
    first = [float(losses(folder)[0][3]) for folder in (tmp_path, whole)]
    assert first[0] == pytest.approx(first[1], rel=0.05)
    assert np.isfinite(report.loss)


def test_smaller_pieces_make_the_same_step(tmp_path):
    """Without BatchNorm's help, that is: its statistics are of each piece."""
    whole = replace(CONFIG, stages=(replace(IMAGE, iterations=1, batch=4),), ema=0.0)
    pieces = replace(whole, stages=(replace(whole.stages[0], batch=2),), accumulate=2)
    logged = []
    for name, config in (("a", whole), ("b", pieces)):
        report = train(config, MODEL, SOURCE, tmp_path / name)
        assert report.samples == 4
        logged.append(report.loss)
    assert logged[0] == pytest.approx(logged[1], rel=0.2)


def test_it_learns_one_picture_by_heart(tmp_path):
    # Twice as large as elsewhere: of 64 x 64 the deepest map is one pixel, so that normalisation
    # sees no variance in a batch of one picture twice, and amplifies rounding by 1/sqrt(eps).
    one = replace(SOURCE, clips=1, frames=1, size=(128, 128))
    stage = replace(IMAGE, iterations=24, lr=3e-3, warmup=4)
    data = replace(CONFIG.data, flip=False, validation_clips=0)
    train(replace(CONFIG, stages=(stage,), data=data), MODEL, one, tmp_path)
    values = [float(row[3]) for row in losses(tmp_path)]
    assert np.mean(values[-5:]) < 0.6 * np.mean(values[:5])


def test_the_backbone_has_its_own_rate_and_norms_no_decay(tmp_path):
    objective = loop.Objective(build_model(MODEL), CONFIG.losses)
    groups = parameter_groups(objective, CONFIG)
    seen = {id(p): (g["multiplier"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(seen) == len(list(objective.parameters()))
    for name, parameter in objective.named_parameters():
        multiplier, decay = seen[id(parameter)]
        assert multiplier == (0.5 if name.startswith("model.backbone.") else 1.0)
        free = parameter.ndim < 2 or name.endswith((".queries", ".positions"))
        assert decay == (0.0 if free else 0.05)


def test_the_average_follows_and_steps_aside():
    module = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(module.weight, 0.0)
    ema = Ema(module, 0.5)
    torch.nn.init.constant_(module.weight, 1.0)
    for i, expected in enumerate((0.9, 1 - 0.1 * 2 / 11, 1 - 0.1 * 2 / 11 * 3 / 12)):
        ema.update(module, i)
        with ema.in_place_of(module):
            assert module.weight.item() == pytest.approx(expected)
        assert module.weight.item() == 1.0


HELD_OUT_FIVE = "validation_clips = 5"


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    """The losses of two processes are those of the two halves of one batch."""
    recipe(tmp_path)
    (tmp_path / "train.toml").write_text(RECIPE.replace("validation_clips = 0", HELD_OUT_FIVE))
    script = tmp_path / "go.py"
    script.write_text(TRAIN.replace("resume=True", "resume=False"))
    port = 20000 + os.getpid() % 20000
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(port), str(script), "train.toml", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = losses(tmp_path / "run")
    assert [row[0] for row in rows] == [str(i) for i in range(1, 13)]
    # The held-out clips were shared, an odd number of them, and give what one process gives.
    with (tmp_path / "run" / "training.csv").open(newline="") as file:
        measured = [row["AP50"] for row in csv.DictReader(file) if row["AP50"]][-1]
    model = build_model(MODEL, 0)
    load_weights(model, tmp_path / "run" / "model.safetensors")
    alone = picture_ap(model, ShapesSource("val", 0, 5, 6, (64, 64)))
    assert measured == f"{alone['AP50']:.4f}"
    state = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    assert state["iteration"] == 12


def test_weights_of_other_classes_give_all_but_the_class_head(tmp_path):
    train(CONFIG, MODEL, SOURCE, tmp_path / "first")
    renamed = tuple(f"new {name}" for name in CLASSES)

    class Renamed(ShapesSource):
        classes = renamed

    source = Renamed("train", 0, 100, 6, (64, 64))
    report = train(
        replace(CONFIG, stages=(replace(IMAGE, lr=0.0),), ema=0.0, weight_decay=0.0),
        replace(MODEL, classes=renamed),
        source,
        tmp_path / "second",
        weights=tmp_path / "first" / "model.safetensors",
    )
    assert report.anew == ("instance_decoder.class_head.weight", "instance_decoder.class_head.bias")
    _, before = load_checkpoint(tmp_path / "first" / "model.safetensors")
    _, after = load_checkpoint(tmp_path / "second" / "model.safetensors")
    same = {n for n in before if torch.equal(before[n], after[n])}
    assert "instance_decoder.kernel_head.weight" in same
    assert "instance_decoder.class_head.weight" not in same
