"""What a dry run measures: processor time, so that a busy machine does not change the estimate."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from training_run import CONFIG, IMAGE, MODEL

from mobileinst_deploy.training import plan
from mobileinst_deploy.training.plan import TrainPlan, plan_run


@pytest.fixture
def one_stage():
    return replace(CONFIG, stages=(replace(IMAGE, iterations=100),))


def planned(config, tmp_path, monkeypatch, *, share: float) -> TrainPlan:
    """A plan on a machine that gives this process a share of the processor."""
    real = time.process_time
    monkeypatch.setattr(plan.time, "perf_counter", lambda: real() / share)
    return plan_run(config, MODEL, tmp_path, tmp_path / "run")


def test_a_busy_machine_is_told_and_does_not_change_the_estimate(one_stage, tmp_path, monkeypatch):
    busy = planned(one_stage, tmp_path, monkeypatch, share=0.01)
    assert "others use this machine" in busy.note
    assert "100.0 times as long" in busy.note
    (stage,) = busy.stages
    # By the clock, a step of a tiny network took a hundred times as long.
    assert stage.step_seconds < 5
    assert stage.hours == pytest.approx(stage.step_seconds * 100 / 3600)


def test_of_an_idle_machine_nothing_is_said(one_stage, tmp_path, monkeypatch):
    assert "others" not in planned(one_stage, tmp_path, monkeypatch, share=1.0).note


def test_a_step_that_takes_long_is_measured_once(monkeypatch):
    times = []

    def once(*_):
        times.append(plan._LONG_S + 1)
        return times[-1]

    monkeypatch.setattr(plan, "_once", once)
    assert plan._fastest(None, None, None, None, 2, None) == plan._LONG_S + 1
    assert len(times) == 1
