"""A record comes back from its file as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mobileinst_deploy.core.errors import InputError
from mobileinst_deploy.measure.protocol import PROTOCOLS
from mobileinst_deploy.measure.record import LatencyRecord, read_record
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.workflows.bench import bench
from mobileinst_deploy.workflows.bench_targets import BenchSettings, HostTarget

BRIEF = replace(PROTOCOLS["sd778g"], warmups=0, runs=2, seconds=0.0)


@pytest.fixture(scope="module")
def record(exported, tmp_path_factory) -> LatencyRecord:
    place = tmp_path_factory.mktemp("report") / "latency.json"
    target = HostTarget(CpuRunner(exported))
    return bench(exported, [target], BenchSettings(BRIEF, (1, 3)), report=place).records[0]


def written(record: LatencyRecord, folder: Path) -> Path:
    path = folder / "latency.json"
    path.write_text(json.dumps(record.to_dict()))
    return path


@pytest.mark.parametrize("emulated", [False, True])
def test_what_is_read_is_what_was_written(record, tmp_path: Path, emulated):
    kept = replace(record, device=replace(record.device, emulated=emulated))
    assert read_record(written(kept, tmp_path)).to_dict() == kept.to_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema=1), "schema 2"),
        (lambda d: d.pop("schedules"), "schedules"),
        (lambda d: d.update(schedules=[]), "schedules"),
        (lambda d: d["schedules"][0]["samples"]["run_ms"].pop(), "not equally long"),
        (lambda d: d["schedules"][0]["samples"].update(run_ms=[-1.0, 2.0]), "run_ms"),
        (lambda d: d["schedules"][1].update(clip_length=1), "lacks runs"),
        (lambda d: d["schedules"][0]["samples"].update(role=["frame", "face"]), "role"),
        (lambda d: d["protocol"].update(statistic="mode"), "statistic"),
        (lambda d: d.update(emulated=True), "emulated"),
        (lambda d: d.update(device=3), "device"),
        (lambda d: d.update(surprise=3), "surprise"),
        (lambda d: d["pair"].update(input_size=[1, 2, 3]), "input_size"),
    ],
)
def test_anything_else_is_refused_with_its_place(record, tmp_path: Path, change, said):
    document = json.loads(json.dumps(record.to_dict()))
    change(document)
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=said) as caught:
        read_record(path)
    assert str(path) in caught.value.cause


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused_at_once(tmp_path: Path, content):
    path = tmp_path / "latency.json"
    path.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(InputError):
        read_record(path)
    assert time.monotonic() - started < 5
