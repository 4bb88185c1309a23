"""The loop: it learns, it stops in a sentence, and a killed run goes on as if nothing had been."""

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from mobileinst_deploy.cli.train import train as train_command
from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import CheckpointError, ConfigError, OutputError
from mobileinst_deploy.network import build_model
from mobileinst_deploy.network.checkpoint import load_checkpoint, load_weights
from mobileinst_deploy.training import loop
from mobileinst_deploy.training.beginning import parameter_groups
from mobileinst_deploy.training.checkpoints import load_state
from mobileinst_deploy.training.config import DataConfig, LossConfig, StageConfig, TrainConfig
from mobileinst_deploy.training.ema import Ema
from mobileinst_deploy.training.loop import train
from mobileinst_deploy.training.sources import CLASSES, ShapesSource
from mobileinst_deploy.training.validate import picture_ap

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


def losses(folder):
    """Every logged loss as it was written, digit for digit."""
    with (folder / "training.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["loss"]]
    names = ("iteration", "stage", "lr", "loss", "focal", "dice", "bce", "objectness", "passed")
    return [[r[name] for name in names] for r in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train(CONFIG, MODEL, SOURCE, folder, held_out=HELD_OUT), folder


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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    recipe(folder)
    train_command(folder / "train.toml", folder / "run")
    return losses(folder / "run")


def recipe(folder):
    (folder / "train.toml").write_text(RECIPE)
    lines = [f"{k} = {v!r}".replace("'", '"') for k, v in MODEL.to_dict().items()]
    lines = [line.replace("True", "true") for line in lines]
    (folder / "model.toml").write_text("\n".join(['id = "tiny"', "[config]", *lines]))


@pytest.mark.parametrize(
    "rows", [pytest.param(2, marks=pytest.mark.slow), 7, pytest.param(10, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_to_the_same_losses(undisturbed, tmp_path, rows):
    """SIGKILL cannot be caught: whatever was being written then stays half written."""
    recipe(tmp_path)
    command = [sys.executable, "-c", TRAIN, "train.toml", "run"]
    log = tmp_path / "run" / "training.csv"
    process = subprocess.Popen(command, cwd=tmp_path)
    try:
        while not log.exists() or log.read_text().count("\n") <= rows:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert losses(tmp_path / "run") == undisturbed


def test_a_half_written_neighbour_is_no_state(tmp_path):
    (tmp_path / ".training.pt.x7").write_bytes(b"half")
    (tmp_path / "training.csv").write_text("iteration,stage\n1,ima")
    report = train(replace(CONFIG, stages=(IMAGE,)), MODEL, SOURCE, tmp_path, resume=True)
    assert report.iterations == 4
    assert len(losses(tmp_path)) == 4


def test_a_finished_run_resumed_does_nothing_more(finished):
    report, folder = finished
    before = losses(folder)
    again = train(CONFIG, MODEL, SOURCE, folder, held_out=HELD_OUT, resume=True)
    assert (again.iterations, again.samples) == (report.iterations, 0)
    assert losses(folder) == before


def test_another_configuration_cannot_resume(finished):
    _, folder = finished
    other = replace(CONFIG, seed=5)
    with pytest.raises(ConfigError, match="another training configuration"):
        train(other, MODEL, SOURCE, folder, resume=True)


def test_another_model_cannot_resume(finished):
    _, folder = finished
    with pytest.raises(ConfigError, match="another training configuration"):
        train(CONFIG, replace(MODEL, num_queries=7), SOURCE, folder, resume=True)


def test_a_run_is_not_overwritten_unasked(finished):
    _, folder = finished
    with pytest.raises(ConfigError, match="holds a run already"):
        train(CONFIG, MODEL, SOURCE, folder)


def test_a_broken_state_is_refused(tmp_path):
    (tmp_path / "training.pt").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(CheckpointError, match="not a whole state of a training run"):
        train(CONFIG, MODEL, SOURCE, tmp_path, resume=True)


def misshapen(state):
    name = next(iter(state["objective"]))
    state["objective"][name] = torch.zeros(3)


DAMAGE = {
    "no iteration": lambda s: s.pop("iteration"),
    "iteration as text": lambda s: s.update(iteration="3"),
    "iteration beyond the run": lambda s: s.update(iteration=10**400),
    "iteration before the run": lambda s: s.update(iteration=-1),
    "no weights": lambda s: s.pop("objective"),
    "weights no mapping": lambda s: s.update(objective=[1]),
    "a weight missing": lambda s: s["objective"].popitem(),
    "a weight of another shape": misshapen,
    "a weight no tensor": lambda s: s["objective"].update(dict.fromkeys(list(s["objective"])[:1])),
    "a weight not finite": lambda s: next(iter(s["objective"].values())).fill_(float("nan")),
    "no optimizer": lambda s: s.pop("optimizer"),
    "another optimizer": lambda s: s["optimizer"]["param_groups"].pop(),
    "a group no mapping": lambda s: s["optimizer"].update(param_groups=[3]),
    "moments of nobody": lambda s: s["optimizer"]["state"].update({10**6: {}}),
    "half the moments": lambda s: s["optimizer"]["state"][0].pop("exp_avg"),
    "moments of another shape": lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.ones(9)),
    "fingerprint no text": lambda s: s.update(fingerprint=3),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_state_that_does_not_fit_the_run_is_refused_before_it_is_taken(
    finished, tmp_path, damage
):
    _, folder = finished
    state = torch.load(folder / "training.pt", weights_only=True)
    damage(state)
    torch.save(state, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match=r"training\.pt is not a whole state"):
        train(CONFIG, MODEL, SOURCE, tmp_path, resume=True)


def test_a_state_with_any_byte_changed_is_read_or_refused(finished, tmp_path):
    _, folder = finished
    good = (folder / "training.pt").read_bytes()
    random = Random(0)
    for _ in range(60):
        data = bytearray(good)
        # Where the structure is: the pickle at the beginning, the directory at the end.
        for _ in range(random.randrange(1, 4)):
            place = random.choice((random.randrange(9000), -1 - random.randrange(9000)))
            data[place] = random.randrange(256)
        (tmp_path / "training.pt").write_bytes(data)
        with suppress(CheckpointError, ConfigError):
            load_state(tmp_path, "x")


def test_a_loss_that_is_no_number_stops_and_leaves_the_good_state(tmp_path, monkeypatch):
    class Sick(loop.Objective):
        calls = 0

        def forward(self, *arguments):
            Sick.calls += 1
            losses = super().forward(*arguments)
            if Sick.calls == 4:
                losses["loss"] = losses["loss"] * float("nan")
            return losses

    monkeypatch.setattr(loop, "Objective", Sick)
    with pytest.raises(ConfigError, match="the loss is nan at iteration 4") as caught:
        train(CONFIG, MODEL, SOURCE, tmp_path)
    assert "Lower lr" in caught.value.next_step
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    assert state["iteration"] == 3
    assert all(torch.isfinite(v).all() for v in state["objective"].values())


def test_memory_that_runs_out_names_the_batch_to_try(tmp_path, monkeypatch):
    def starve(self, *arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1")

    monkeypatch.setattr(loop.Objective, "forward", starve)
    with pytest.raises(ConfigError, match="memory ran out") as caught:
        train(replace(CONFIG, stages=(replace(IMAGE, batch=8),)), MODEL, SOURCE, tmp_path)
    assert "Set batch to 4 and accumulate to 2" in caught.value.next_step


def test_other_failures_are_not_taken_for_memory(tmp_path, monkeypatch):
    def fail(self, *arguments):
        raise RuntimeError("shapes do not agree")

    monkeypatch.setattr(loop.Objective, "forward", fail)
    with pytest.raises(RuntimeError, match="do not agree"):
        train(CONFIG, MODEL, SOURCE, tmp_path)


def test_a_full_disk_keeps_the_last_state(tmp_path, monkeypatch):
    train(replace(CONFIG, stages=(IMAGE,)), MODEL, SOURCE, tmp_path)
    before = (tmp_path / "training.pt").read_bytes()
    files = sorted(p.name for p in tmp_path.iterdir())

    def full(state, file):
        file.write(b"half a sta")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    from mobileinst_deploy.training.checkpoints import save_state

    with pytest.raises(OutputError, match="no space left"):
        save_state(tmp_path, {"iteration": 5})
    assert (tmp_path / "training.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == files


def test_classes_of_data_and_model_must_be_the_same(tmp_path):
    with pytest.raises(ConfigError, match="classes"):
        train(CONFIG, replace(MODEL, classes=("a", "b")), SOURCE, tmp_path)


def test_query_passing_needs_a_model_with_both_stages(tmp_path):
    with pytest.raises(ConfigError, match="query passing"):
        train(CONFIG, replace(MODEL, stages=("local", "local")), SOURCE, tmp_path)


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
