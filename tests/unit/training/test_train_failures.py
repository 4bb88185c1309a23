"""What stops a run, in a sentence, and leaves the good state."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
import torch
from training_run import (
    CONFIG,
    IMAGE,
    MODEL,
    SOURCE,
)

from mobileinst_deploy.core.errors import ConfigError, OutputError
from mobileinst_deploy.training import loop
from mobileinst_deploy.training.loop import train


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


def test_workers_need_a_short_name_of_the_folder_for_temporary_files(tmp_path, monkeypatch):
    """Batches come through a socket in there; with a longer name they would never come."""
    config = replace(CONFIG, data=replace(CONFIG.data, workers=1))
    monkeypatch.setattr("tempfile.tempdir", "/".ljust(72, "x"))
    with pytest.raises(ConfigError, match="72 bytes, and 71 are the most") as caught:
        train(config, MODEL, SOURCE, tmp_path / "run")
    assert "TMPDIR" in caught.value.next_step
    assert not (tmp_path / "run").exists()


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
