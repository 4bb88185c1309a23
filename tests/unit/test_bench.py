"""The protocol's pattern, on this machine and never passed off as a phone's."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mobileinst_deploy.core.bundle import NOT_THE_PAPER, ExportBundle
from mobileinst_deploy.core.contract import graph_specs
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.text import ms_text
from mobileinst_deploy.measure.latency_table import latency_table
from mobileinst_deploy.measure.protocol import PROTOCOLS, parse_clip_lengths, protocol
from mobileinst_deploy.measure.record import LatencyRecord
from mobileinst_deploy.runtimes.onnxruntime import VERSION, CpuRunner
from mobileinst_deploy.workflows.bench import bench
from mobileinst_deploy.workflows.bench_targets import BenchSettings, HostTarget


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, int | None]]:
    """Every run in order: its role and the number of kernels handed over."""
    seen, ready = [], CpuRunner.ready

    def note(self, role, inputs):
        kernels = inputs.get("kernels")
        seen.append((role, None if kernels is None else kernels.shape[1]))
        return ready(self, role, inputs)

    monkeypatch.setattr(CpuRunner, "ready", note)
    return seen


BRIEF = replace(PROTOCOLS["sd778g"], warmups=1, runs=2, seconds=0.0)


@pytest.fixture
def quick(tmp_path: Path):
    """Measures with so little work that a test can wait for it; its amounts make it invalid."""

    def measured(bundle: ExportBundle, used=BRIEF, runs=2, seconds=0.0, **options) -> LatencyRecord:
        used = replace(used, runs=runs, seconds=seconds)
        settings = BenchSettings(used, **{"clip_lengths": (1, 3), **options})
        result = bench(bundle, [HostTarget(CpuRunner(bundle))], settings, report=tmp_path)
        if result.outcomes[0].error is not None:
            raise result.outcomes[0].error
        (record,) = result.records
        return record

    return measured


def test_keyframes_and_reuse_frames_alternate_as_in_a_video(quick, exported: ExportBundle, calls):
    quick(exported)
    frame, reuse = ("frame", None), ("mask_head", 5)
    warmup = [frame, reuse]
    assert calls == [*warmup, frame, frame, *[frame, reuse, reuse] * 2]


def test_every_sample_is_kept_and_the_conditions_with_it(quick, exported: ExportBundle):
    report = quick(exported)
    one, three = report.clips
    assert (len(one.keyframe.samples_ms), one.reuse) == (2, None)
    assert (len(three.keyframe.samples_ms), len(three.reuse.samples_ms)) == (2, 4)
    assert all(s > 0 for s in (*one.keyframe.samples_ms, *three.reuse.samples_ms))
    assert report.pair.bundle_sha256 == exported.sha256
    assert (report.device.kind, report.device.name) == ("host", "cpu")
    assert report.conditions.threads == 1
    assert report.conditions.affinity == (report.conditions.core,)
    assert report.runtime == f"onnxruntime {VERSION}"
    assert report.load_ms.keys() == {"frame", "mask_head"}
    for state in (report.state_before, report.state_after):
        assert len(state.cores) >= 1
        assert state.load_1min is not None
    document = report.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False))["schema"] == 2


def test_a_sample_says_when_where_and_what_ran(quick, exported: ExportBundle):
    _, schedule = quick(exported).schedules
    assert [(s.role, s.clip) for s in schedule.samples] == [
        (role, clip) for clip in (0, 1) for role in ("frame", "mask_head", "mask_head")
    ]
    starts = [s.start_ms for s in schedule.samples]
    assert starts == sorted(starts)
    assert schedule.wall_ms >= starts[-1]
    assert all(s.run_ms > 0 and s.prepare_ms > 0 for s in schedule.samples)
    columns = quick(exported).to_dict()["schedules"][1]["samples"]
    assert {len(column) for column in columns.values()} == {6}


def test_what_is_timed_is_inference_alone(quick, exported: ExportBundle, monkeypatch):
    ready = CpuRunner.ready

    class Slow:
        def __init__(self, run):
            self._run = run
            self.compute = run.compute

        def outputs(self):
            time.sleep(0.05)
            return self._run.outputs()

    def slow(self, role, inputs):
        time.sleep(0.05)
        return Slow(ready(self, role, inputs))

    monkeypatch.setattr(CpuRunner, "ready", slow)
    (schedule,) = quick(exported, clip_lengths=(1,)).schedules
    assert all(s.prepare_ms >= 50 for s in schedule.samples)
    assert all(s.run_ms < 50 for s in schedule.samples)


@pytest.mark.parametrize(("name", "headline"), [("sd778g", "p50"), ("tnn-script", "mean")])
def test_record_and_table_name_the_statistic_that_the_protocol_chose(
    quick, exported: ExportBundle, name, headline
):
    record = quick(exported, replace(PROTOCOLS[name], warmups=0), clip_lengths=(3,))
    (clip,) = record.clips
    chosen = clip.keyframe.mean if headline == "mean" else clip.keyframe.p50
    assert clip.keyframe.headline == chosen
    assert record.to_dict()["clips"][0]["amortised_ms"] == clip.amortised_ms
    table = latency_table([record])
    (row,) = table.rows
    for name, value in ((f"keyframe {headline}", chosen), ("ms a frame", clip.amortised_ms)):
        assert row[table.columns.index(name)] == ms_text(value)


def test_it_says_that_this_is_no_phone(quick, exported: ExportBundle):
    assert any("not on a phone" in note for note in quick(exported).notes)


def test_it_says_that_8_bit_is_not_the_papers_way(quick, exported: ExportBundle):
    assert not any("8-bit" in note for note in quick(exported).notes)
    report = quick(replace(exported, optimized=("quantize-int8", "more")))
    assert report.pair.precision == "int8"
    assert NOT_THE_PAPER["int8"] in report.notes


def test_only_live_kernels_are_handed_to_reuse_frames(quick, exported: ExportBundle, calls):
    report = quick(exported, live_kernels=2)
    assert {n for role, n in calls if role == "mask_head"} == {2}
    assert report.conditions.live_kernels == 2


@pytest.mark.parametrize("live", [0, 6])
def test_more_kernels_than_there_are_cannot_be_live(quick, exported: ExportBundle, live):
    with pytest.raises(ConfigError, match=f"{live} live kernels"):
        quick(exported, live_kernels=live)


def test_a_static_pair_takes_all_of_its_kernels_or_none(quick, exported: ExportBundle):
    spec = graph_specs(exported.config, dynamic_kernels=False)["mask_head"]
    head = replace(exported.graphs["mask_head"], spec=spec)
    static = replace(exported, graphs={**exported.graphs, "mask_head": head})
    with pytest.raises(ConfigError, match="2 live kernels"):
        quick(static, live_kernels=2)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_measurement_ends(seconds):
    with pytest.raises(ConfigError, match="never end"):
        protocol("sd778g", seconds=seconds)


def test_a_schedule_lasts_at_least_the_time_asked_for(quick, exported: ExportBundle):
    report = quick(exported, clip_lengths=(1,), seconds=0.3)
    assert sum(report.clips[0].keyframe.samples_ms) > 100


def test_less_than_the_protocol_asks_for_is_invalid_here_as_on_a_phone(
    quick, exported: ExportBundle
):
    assert "2 runs where sd778g asks for 50" in quick(exported).invalid


@pytest.mark.parametrize(("text", "lengths"), [("1", (1,)), ("1,3,6", (1, 3, 6)), ("6, 1", (6, 1))])
def test_clip_lengths_are_read_in_order(text, lengths):
    assert parse_clip_lengths(text) == lengths


@pytest.mark.parametrize("text", ["", "0", "-1", "1,1", "1,x", "1.5", "1001", "1,,2"])
def test_anything_else_is_no_list_of_clip_lengths(text):
    with pytest.raises(ConfigError, match="values of T"):
        parse_clip_lengths(text)
