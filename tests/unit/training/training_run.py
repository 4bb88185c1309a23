"""A run of a tiny network on drawn shapes, and how tests read what it left."""

from __future__ import annotations

import csv
from pathlib import Path

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.training.config import DataConfig, LossConfig, StageConfig, TrainConfig
from mobileinst_deploy.training.sources import CLASSES, ShapesSource

MODEL = ModelConfig(
    "topformer-tiny", CLASSES, (64, 64), num_queries=6, width=16, num_heads=2, pool_size=2
)
IMAGE = StageConfig("image", 2, 1e-3, 4)
VIDEO = StageConfig("video", 1, 1e-3, 4, query_passing=True)
CONFIG = TrainConfig(
    "tiny",
    (IMAGE, VIDEO),
    DataConfig(validation_clips=2, frames=6),
    LossConfig(semantic_weight=1.0),
    ema=0.9,
    threads=1,
    log_every=1,
    save_every=3,
)
SOURCE = ShapesSource("train", 0, 100, 6, (64, 64))
HELD_OUT = ShapesSource("val", 0, 2, 6, (64, 64))
RECIPE = """
model = "model.toml"
ema = 0.9
threads = 1
log_every = 1
save_every = 3
[data]
validation_clips = 0
frames = 6
[[stages]]
kind = "image"
iterations = 8
batch = 2
lr = 1e-3
[[stages]]
kind = "video"
iterations = 4
batch = 1
lr = 1e-3
query_passing = true
"""
TRAIN = (
    "import sys; from pathlib import Path; from mobileinst_deploy.cli.train import train; "
    "train(Path(sys.argv[1]), Path(sys.argv[2]), resume=True)"
)


def losses(folder: Path) -> list[list[str]]:
    """Every logged loss as it was written, digit for digit."""
    with (folder / "training.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["loss"]]
    names = ("iteration", "stage", "lr", "loss", "focal", "dice", "bce", "objectness", "passed")
    return [[r[name] for name in names] for r in rows]


def recipe(folder: Path) -> None:
    """Write the recipe and the model of a run by the command line."""
    (folder / "train.toml").write_text(RECIPE)
    lines = [f"{k} = {v!r}".replace("'", '"') for k, v in MODEL.to_dict().items()]
    lines = [line.replace("True", "true") for line in lines]
    (folder / "model.toml").write_text("\n".join(['id = "tiny"', "[config]", *lines]))
