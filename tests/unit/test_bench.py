"""The protocol's pattern, on this machine and never passed off as a phone's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import graph_specs
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.runtimes.onnxruntime import VERSION, CpuRunner
from mobileinst_deploy.workflows import bench
from mobileinst_deploy.workflows.bench import bench_host, parse_clip_lengths


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, int | None]]:
    """Every run in order: its role and the number of kernels handed over."""
    seen, run = [], CpuRunner.run

    def note(self, role, inputs):
        kernels = inputs.get("kernels")
        seen.append((role, None if kernels is None else kernels.shape[1]))
        return run(self, role, inputs)

    monkeypatch.setattr(CpuRunner, "run", note)
    return seen


def quick(bundle: ExportBundle, **options):
    settings = {"clip_lengths": (1, 3), "runs": 2, "warmup": 1, "seconds": 0, **options}
    return bench_host(bundle, **settings)


def test_keyframes_and_reuse_frames_alternate_as_in_a_video(exported: ExportBundle, calls):
    quick(exported)
    frame, reuse = ("frame", None), ("mask_head", 5)
    warmup = [frame, reuse]
    assert calls == [*warmup, frame, frame, *[frame, reuse, reuse] * 2]


def test_every_sample_is_kept_and_the_conditions_with_it(exported: ExportBundle):
    report = quick(exported)
    one, three = report.clips
    assert (len(one.keyframe.samples_ms), one.reuse) == (2, None)
    assert (len(three.keyframe.samples_ms), len(three.reuse.samples_ms)) == (2, 4)
    assert all(s > 0 for s in (*one.keyframe.samples_ms, *three.reuse.samples_ms))
    assert report.bundle_sha256 == exported.sha256
    assert report.device["kind"] == "host"
    assert report.device["cores"] >= 1
    assert report.settings["threads"] == 1
    assert isinstance(report.settings["core"], int)
    assert report.settings["runtime"] == f"onnxruntime {VERSION}"
    assert report.state_before.keys() == report.state_after.keys() == {"load_1min"}
    json.dumps(report.to_dict(), allow_nan=False)


def test_it_says_that_this_is_no_phone(exported: ExportBundle):
    assert "not on a phone" in quick(exported).notes[0]


def test_it_says_that_8_bit_is_not_the_papers_way(exported: ExportBundle):
    assert len(quick(exported).notes) == 1
    report = quick(replace(exported, optimized=("quantize-int8", "more")))
    assert report.settings["precision"] == "int8"
    assert "8-bit: not the paper's protocol" in report.notes


def test_only_live_kernels_are_handed_to_reuse_frames(exported: ExportBundle, calls):
    report = quick(exported, live_kernels=2)
    assert {n for role, n in calls if role == "mask_head"} == {2}
    assert report.settings["live_kernels"] == 2


@pytest.mark.parametrize("live", [0, 6])
def test_more_kernels_than_there_are_cannot_be_live(exported: ExportBundle, live):
    with pytest.raises(ConfigError, match=f"{live} live kernels"):
        quick(exported, live_kernels=live)


def test_a_static_pair_takes_all_of_its_kernels_or_none(exported: ExportBundle):
    spec = graph_specs(exported.config, dynamic_kernels=False)["mask_head"]
    head = replace(exported.graphs["mask_head"], spec=spec)
    static = replace(exported, graphs={**exported.graphs, "mask_head": head})
    with pytest.raises(ConfigError, match="2 live kernels"):
        quick(static, live_kernels=2)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_measurement_ends(exported: ExportBundle, seconds):
    with pytest.raises(ConfigError, match="never end"):
        quick(exported, seconds=seconds)


def test_a_schedule_lasts_at_least_the_time_asked_for(exported: ExportBundle):
    report = quick(exported, clip_lengths=(1,), seconds=0.3)
    assert sum(report.clips[0].keyframe.samples_ms) > 100


def test_a_busy_machine_makes_the_measurement_invalid(exported: ExportBundle, monkeypatch):
    clock = iter(np.cumsum([0, 0, *[0, 1, 0, 10] * 50]).tolist())
    monkeypatch.setattr(bench.time, "perf_counter_ns", lambda: int(next(clock) * 1e6))
    report = quick(exported, clip_lengths=(1,), runs=4, warmup=0)
    assert not report.valid
    assert "at T=1 the keyframe runs spread by" in report.invalid[0]


@pytest.mark.parametrize(("text", "lengths"), [("1", (1,)), ("1,3,6", (1, 3, 6)), ("6, 1", (6, 1))])
def test_clip_lengths_are_read_in_order(text, lengths):
    assert parse_clip_lengths(text) == lengths


@pytest.mark.parametrize("text", ["", "0", "-1", "1,1", "1,x", "1.5", "1001", "1,,2"])
def test_anything_else_is_no_list_of_clip_lengths(text):
    with pytest.raises(ConfigError, match="clip lengths"):
        parse_clip_lengths(text)
