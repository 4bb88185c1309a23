"""A killed run goes on as if nothing had been; what does not fit is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
import torch
from training_run import (
    CONFIG,
    HELD_OUT,
    IMAGE,
    MODEL,
    SOURCE,
    TRAIN,
    losses,
    recipe,
)

from mobileinst_deploy.cli.train import train as train_command
from mobileinst_deploy.core.errors import CheckpointError, ConfigError
from mobileinst_deploy.training.checkpoints import load_state
from mobileinst_deploy.training.loop import train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    recipe(folder)
    train_command(folder / "train.toml", folder / "run")
    return losses(folder / "run")


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
