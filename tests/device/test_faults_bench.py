"""bench and verify on the emulated phone: the real runner, the real bundle, the real adb."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import left_running

from mobileinst_deploy.cli.console import Printer
from mobileinst_deploy.cli.tables import latency_table
from mobileinst_deploy.core.bundle import load_golden
from mobileinst_deploy.core.errors import DeviceError, MeasurementInvalid, OutputError
from mobileinst_deploy.measure.protocol import PROTOCOLS
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.runtimes.phone import AdbRunner
from mobileinst_deploy.workflows.bench import BenchResult, bench as bench_pair
from mobileinst_deploy.workflows.bench_targets import BenchSettings, PhoneTarget

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]

#: The protocol with so little work that a test can wait for it; only its amounts make it invalid.
BRIEF = replace(PROTOCOLS["sd778g"], warmups=1, runs=2, seconds=0.0)
BATTERY = "/system/etc/state/battery_temperature"
SETTINGS = BenchSettings(BRIEF, clip_lengths=(1, 3), cooling_limit_s=0, limit_s=120)


def measure(pair, bundle, serials, settings=SETTINGS, **options) -> BenchResult:
    targets = [PhoneTarget(serial, bundle, pair) for serial in serials]
    return bench_pair(pair, targets, settings, **options)


def bench(pair, bundle, *serials: str, **change):
    return measure(pair, bundle, serials, replace(SETTINGS, **change)).outcomes


def test_the_whole_ladder_holds_on_the_phones_own_binaries(phone, pair, real_bundle) -> None:
    with AdbRunner(pair, real_bundle, phone.serial) as runner:
        assert runner.emulated
        assert "emulated" in runner.name
        report = verify_bundle(pair, runner, load_golden(pair), reference="ONNX Runtime here")
    assert [check.rung for check in report.checks if not check.passed] == []
    assert report.tensors


def test_a_measurement_is_whole_and_says_that_it_is_emulated(phone, pair, real_bundle) -> None:
    (outcome,) = bench(pair, real_bundle, phone.serial)
    report = outcome.record
    assert report is not None
    assert report.emulated
    assert (report.conditions.core, report.conditions.affinity) == (7, (7,))
    assert [clip.clip_length for clip in report.clips] == [1, 3]
    assert report.state_before.cores[7].now_khz == 2400000
    assert report.state_after.battery_celsius == 27.5
    # The amounts alone make this one invalid: clocks, heat and core were as they should be.
    assert all("asks for" in reason for reason in report.invalid)
    document = json.dumps(report.to_dict(), allow_nan=False)
    assert '"clips"' not in document
    assert '"paper": []' in document
    assert "this device is emulated" in document


def test_tnns_habits_run_unpinned(phone, pair, real_bundle) -> None:
    (outcome,) = bench(pair, real_bundle, phone.serial, protocol=PROTOCOLS["tnn-script"])
    report = outcome.record
    assert report is not None
    assert report.conditions.core is None
    assert len(report.conditions.affinity) == 8
    assert report.valid
    assert len(report.clips[0].keyframe.samples_ms) >= 16


@pytest.fixture
def changed(phone) -> Iterator[Callable[[str, str], None]]:
    """Change what the phone says for one test."""
    before: dict[str, str] = {}

    def change(path: str, value: str) -> None:
        before.setdefault(path, phone.read(path))
        phone.set(path, value)

    yield change
    for path, value in before.items():
        phone.set(path, value)


def test_faults_core_is_offline(phone, pair, real_bundle, changed, survived) -> None:
    """The wanted core is offline"""
    changed("/sys/devices/system/cpu/cpu7/online", "0")
    (outcome,) = bench(pair, real_bundle, phone.serial, core="7")
    assert isinstance(outcome.error, DeviceError)
    assert "core 7 is offline" in str(outcome.error)
    survived(outcome.error)


def test_faults_prime_core_is_offline(phone, pair, real_bundle, changed, survived) -> None:
    """The fastest core is offline and none is named"""
    changed("/sys/devices/system/cpu/cpu7/online", "0")
    (outcome,) = bench(pair, real_bundle, phone.serial, clip_lengths=(1,))
    assert outcome.record is not None
    assert (outcome.record.conditions.core, outcome.record.conditions.affinity) == (6, (6,))
    survived("the next fastest core is used, and the report says which")


def test_faults_affinity_is_refused(other_phone, pair, real_bundle, survived) -> None:
    """The kernel refuses to pin the runner"""
    (outcome,) = bench(pair, real_bundle, other_phone("refusing").serial)
    assert isinstance(outcome.error, DeviceError)
    assert "--core" in str(outcome.error)
    survived(outcome.error)


def test_faults_too_hot_to_start(other_phone, pair, fake_bundle, survived) -> None:
    """The phone is too hot to start"""
    (outcome,) = bench(pair, fake_bundle, other_phone("hot").serial)
    assert isinstance(outcome.error, DeviceError)
    assert "too hot" in str(outcome.error)
    survived(outcome.error)


def test_faults_hot_phone_cools_down(phone, pair, real_bundle, changed, survived) -> None:
    """The phone is hot at first and then cools"""
    changed(BATTERY, "410")
    told = []

    def listen(label: str, done: float, total: float | None) -> None:
        told.append(label)
        if label == "wait for the phone to cool":
            changed(BATTERY, "300")

    settings = replace(SETTINGS, clip_lengths=(1,), cooling_limit_s=60)
    (outcome,) = measure(pair, real_bundle, [phone.serial], settings, progress=listen).outcomes
    assert outcome.record is not None
    assert "wait for the phone to cool" in told
    assert outcome.record.conditions.waited_to_cool_s > 1
    assert outcome.record.state_before.battery_celsius == 30.0
    assert all("asks for" in reason for reason in outcome.record.invalid)
    survived("it waits, shows that it waits, then measures; the wait is in the report")


def test_faults_throttling(phone, pair, real_bundle, changed, survived) -> None:
    """The phone throttles during the run"""

    def throttle(label: str, done: float, total: float | None) -> None:
        if label == "T = 1":
            changed("/sys/devices/system/cpu/cpu7/cpufreq/scaling_cur_freq", "1497600")
            changed("/system/etc/state/thermal_status", "2")

    settings = replace(SETTINGS, clip_lengths=(1,), protocol=replace(BRIEF, seconds=3.0))
    result = measure(pair, real_bundle, [phone.serial], settings, progress=throttle)
    (report,) = result.records
    assert report is not None
    said = "; ".join(report.invalid)
    assert "the clock of core 7 moved between 1498 and 2400 MHz" in said
    assert "thermal status was none before and moderate after" in said
    with pytest.raises(MeasurementInvalid) as caught:
        raise result.failure
    assert len(report.clips[0].keyframe.samples_ms) > 2
    survived(caught.value)


def test_faults_phone_tells_nothing(other_phone, pair, fake_bundle, survived) -> None:
    """The phone tells no clocks and no temperatures, and no core is named"""
    (outcome,) = bench(pair, fake_bundle, other_phone("silent").serial)
    assert isinstance(outcome.error, DeviceError)
    assert "--core N" in str(outcome.error)
    survived(outcome.error)


def test_faults_blind_measurement(other_phone, pair, real_bundle, survived) -> None:
    """The phone tells no clocks and no temperatures, and a core is named"""
    serial = other_phone("silent").serial
    (outcome,) = bench(pair, real_bundle, serial, core="4", clip_lengths=(1,))
    assert outcome.record is not None
    assert any("throttling cannot be excluded" in reason for reason in outcome.record.invalid)
    with pytest.raises(MeasurementInvalid) as caught:
        raise BenchResult((outcome,)).failure
    survived(caught.value)


def test_faults_nan(phone, real_bundle, tmp_path, survived) -> None:
    """The model gives NaN on the phone"""
    import tiny_export

    broken = tiny_export.export(tmp_path / "nan", mask_scale=float("nan"))
    golden = load_golden(broken)
    with (
        pytest.raises(DeviceError) as caught,
        AdbRunner(broken, real_bundle, phone.serial) as runner,
    ):
        verify_bundle(broken, runner, golden, reference="ONNX Runtime here")
    assert "finite" in str(caught.value) or "NaN" in str(caught.value)
    survived(caught.value)


def test_faults_one_of_two_phones_fails(phone, other_phone, pair, real_bundle, survived) -> None:
    """One of several phones fails"""
    hot = other_phone("hot").serial
    outcomes = bench(pair, real_bundle, phone.serial, hot, clip_lengths=(1,))
    assert outcomes[0].record is not None
    assert [o.name for o in outcomes] == [f"adb:{phone.serial}", f"adb:{hot}"]
    document = BenchResult(outcomes).to_dict()
    assert [p["device"]["serial"] for p in document["devices"]] == [phone.serial]
    assert [f["device"] for f in document["failed"]] == [f"adb:{hot}"]
    with pytest.raises(DeviceError, match="1 of 2 devices failed") as caught:
        raise BenchResult(outcomes).failure
    survived(caught.value)


def test_faults_interrupted_bench(phone, other_phone, pair, real_bundle, survived) -> None:
    """Ctrl-C while several phones measure"""
    second = other_phone("8gen2").serial
    interrupted = []

    def interrupt(label: str, done: float, total: float | None) -> None:
        if "push" not in label and not interrupted:
            interrupted.append(label)
            os.kill(os.getpid(), signal.SIGINT)

    settings = replace(SETTINGS, protocol=replace(BRIEF, seconds=100.0))
    with pytest.raises(KeyboardInterrupt):
        measure(pair, real_bundle, [phone.serial, second], settings, progress=interrupt)
    assert interrupted
    assert left_running(phone.serial) == left_running(second) == ""
    survived("Interrupted; nothing half written was left behind.", 130)


def test_faults_interrupted_wait(other_phone, pair, fake_bundle, survived) -> None:
    """Ctrl-C while the phone cools"""

    def interrupt(label: str, done: float, total: float | None) -> None:
        if label == "wait for the phone to cool":
            os.kill(os.getpid(), signal.SIGINT)

    settings = replace(SETTINGS, cooling_limit_s=600)
    serial = other_phone("hot").serial
    with pytest.raises(KeyboardInterrupt):
        measure(pair, fake_bundle, [serial], settings, progress=interrupt)
    assert left_running(serial) == ""
    survived("Interrupted; nothing half written was left behind.", 130)


def test_faults_report_cannot_be_written(
    phone, pair, real_bundle, survived, tmp_path: Path, monkeypatch
) -> None:
    """The record cannot be written beside the pair"""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "results").write_text("not a folder")
    unwritable = replace(pair, folder=tmp_path)
    (outcome,) = bench(unwritable, real_bundle, phone.serial, clip_lengths=(1,))
    assert outcome.kept is not None
    assert json.loads(Path(outcome.kept.path).read_text())["schema"] == 2
    assert "cannot be written" in outcome.kept.note
    survived("the measurement is kept in the user's state folder, and a note says where")


def test_faults_named_place_cannot_be_written(fake_bundle, pair, survived, tmp_path: Path) -> None:
    """The place that --report names cannot be written"""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError) as caught:
        measure(pair, fake_bundle, ["nobody"], report=tmp_path / "file" / "latency.json")
    survived(caught.value)


def test_what_was_measured_is_kept_before_it_is_shown(
    phone, pair, real_bundle, tmp_path: Path, monkeypatch
) -> None:
    def hostile(self, plan):
        result = started(self, plan)
        return replace(result, runtime="[/] \x1b[31m 1")

    started = Session.start
    monkeypatch.setattr(Session, "start", hostile)
    place = tmp_path / "latency.json"
    result = measure(pair, real_bundle, [phone.serial], report=place)
    assert json.loads(place.read_text())["runtime"] == "[/] \x1b[31m 1"
    console = Printer(stderr=False)
    console.file = io.StringIO()
    console.print(latency_table(result.records))
    assert "[/]" in console.file.getvalue()
    assert "\x1b" not in console.file.getvalue()
