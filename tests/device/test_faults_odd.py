"""Faults of odd phones: they greet, their time is wrong, their folders lead elsewhere, they lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import faultlist
import pytest
import wire
from conftest import PHONE, adb, left_running, reach
from fake_runner import GOOD, PLAN, FakeRunner, broken, result
from test_faults_bench import BRIEF, SETTINGS, bench, measure
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.bundle import load_golden
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import EXIT_NO_DEVICE, DeviceError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.phone import shell as shells
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import Plan, plan_calls
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import read_phone
from mobileinst_deploy.phone.storage import REMOTE_ROOT, RemoteFile, clean_phone, install
from mobileinst_deploy.phone.toolchain import compile_shared, device_compiler

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]

#: A library that gives whoever asks for the date 1970 and the far future in turn.
CLOCK = """
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long turned(long now) {
  static int turn;
  return turn++ % 2 ? now + 1000000000 : now % 1000;
}
int clock_gettime(clockid_t id, struct timespec *t) {
  int failed = (int)syscall(SYS_clock_gettime, id, t);
  if (!failed && id == CLOCK_REALTIME) t->tv_sec = turned(t->tv_sec);
  return failed;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec s;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &s);
  t->tv_sec = s.tv_sec;
  t->tv_usec = s.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timespec s;
  clock_gettime(CLOCK_REALTIME, &s);
  if (t) *t = s.tv_sec;
  return s.tv_sec;
}
"""


@pytest.fixture
def fake(pair, fake_bundle, tmp_path) -> FakeRunner:
    return FakeRunner(pair, fake_bundle, tmp_path)


def test_faults_shell_greets(other_phone, pair, real_bundle, survived) -> None:
    """The phone's shell says something before every answer, some of it like an answer"""
    device = AdbDevice(other_phone("banner").serial)
    assert device.shell("printf 'one\n'; exit 7").stdout == "one\n"
    assert read_phone(device)[0].soc == "SM7325"
    (outcome,) = bench(pair, real_bundle, device.serial, clip_lengths=(1,))
    assert outcome.record is not None, outcome.error
    assert all("asks for" in reason for reason in outcome.record.invalid)
    assert clean_phone(device) > 1 << 20
    assert device.shell(f"ls {REMOTE_ROOT}").exit_code != 0
    survived("what it says is passed over, and the measurement goes on")


@pytest.fixture
def linked_root(phone) -> Iterator[str]:
    """The work folder is a link to a folder that holds somebody's file, too."""
    device, elsewhere = AdbDevice(phone.serial), "/data/local/tmp/elsewhere"
    device.shell(f"rm -rf {REMOTE_ROOT} {elsewhere}; mkdir {elsewhere}")
    device.shell(f"echo mine > {elsewhere}/precious; ln -s {elsewhere} {REMOTE_ROOT}")
    yield elsewhere
    device.shell(f"rm -rf {REMOTE_ROOT} {elsewhere}")


def test_faults_work_folder_is_a_link(phone, fake, linked_root: str, survived) -> None:
    """The work folder on the phone is a symbolic link"""
    device = AdbDevice(phone.serial)
    with pytest.raises(DeviceError) as caught, fake.session(phone.serial):
        pass
    broken(caught, REMOTE_ROOT, "symbolic link", "device clean")
    with pytest.raises(DeviceError, match="symbolic link"):
        install(device, (), "0" * 64)
    assert device.shell(f"ls {linked_root}").stdout.split() == ["precious"]
    pushed = " ".join(f"{linked_root}/{name}" for name in ("0" * 64, "run-abc"))
    device.shell(f"mkdir {pushed}; head -c 100000 /dev/zero > {linked_root}/{'0' * 64}/weights")
    assert 1 << 20 > clean_phone(device) >= 100_000
    assert device.shell(f"ls -d {REMOTE_ROOT}").exit_code != 0
    assert device.shell(f"ls {linked_root}").stdout.split() == ["precious"]
    with fake.session(phone.serial):
        pass
    survived(caught.value)


def test_faults_a_pushed_folder_is_a_link(phone, tmp_path, survived) -> None:
    """A folder of what was pushed is a symbolic link"""
    device, digest = AdbDevice(phone.serial), "1" * 64
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    device.shell(f"mkdir -p {REMOTE_ROOT}; ln -s /data/local/tmp {REMOTE_ROOT}/{digest}")
    with pytest.raises(DeviceError) as caught:
        install(device, [RemoteFile(path, sha256_of(path), 7)], digest)
    broken(caught, digest, "symbolic link")
    assert device.shell("ls /data/local/tmp/weights.bin").exit_code != 0
    device.shell(f"rm {REMOTE_ROOT}/{digest}")
    survived(caught.value)


def test_faults_the_date_jumps(phone, pair, real_bundle, tmp_path, monkeypatch, survived) -> None:
    """The phone's date is 1970 and 2057 in turn while it measures"""
    source, library = tmp_path / "clock.c", phone.folder / "etc" / "clock.so"
    source.write_text(CLOCK)
    c = [word if word != "c++" else "cc" for word in device_compiler()]
    compile_shared(c, str(source), library)
    plain = DeviceBundle.command

    def preloaded(self: DeviceBundle, remote: str, plan: str) -> list[str]:
        return plain(self, remote, plan, preload="/system/etc/clock.so")

    monkeypatch.setattr(DeviceBundle, "command", preloaded)
    settings = replace(SETTINGS, protocol=replace(BRIEF, runs=3, seconds=0.5))
    (outcome,) = measure(pair, real_bundle, [phone.serial], settings).outcomes
    library.unlink()
    assert outcome.record is not None, outcome.error
    assert all("asks for" in reason for reason in outcome.record.invalid)
    for schedule in outcome.record.schedules:
        starts = [sample.start_ms for sample in schedule.samples]
        assert starts == sorted(starts)
        assert 500 <= schedule.wall_ms < 120_000
        assert all(0 < sample.run_ms < 60_000 for sample in schedule.samples)
    survived("nothing that is measured looks at the date")


def test_faults_folder_left_in_1970(phone, fake, survived) -> None:
    """An earlier session left its folder on the phone in 1970"""
    device, left = AdbDevice(phone.serial), f"{REMOTE_ROOT}/run-left"
    device.shell(f"mkdir -p {left}; touch -d @60 {left}")
    with fake.session(phone.serial):
        assert device.shell(f"ls {left}").exit_code != 0
    survived("it is removed, and the measurement goes on")


def test_faults_restart_between_push_and_run(
    start_phone, connect, fake: FakeRunner, survived
) -> None:
    """The phone restarts between push and run, with what was pushed lost"""
    phone = start_phone("778g")
    reach(phone.serial, connect)
    with fake.session(phone.serial) as session:
        subprocess.run([PHONE, "stop", str(phone.pid)], check=True, capture_output=True)
        phone = start_phone("778g", phone.port)
        reach(phone.serial, connect)
        with pytest.raises(DeviceError) as caught:
            session.start(PLAN)
    broken(caught, "restarted or cleaned meanwhile", "again")
    assert left_running(phone.serial) == ""
    fake.behave(phone.serial, result(GOOD))
    with fake.session(phone.serial) as session:
        assert session.start(PLAN).mode == "outputs"
    adb("disconnect", phone.serial)
    survived(caught.value)


@pytest.fixture
def nearly_full(other_phone, pair, real_bundle) -> Iterator[Session]:
    """A session on a phone whose /data has 300 kB left once everything is in place."""
    device = AdbDevice(other_phone("small-data").serial)
    graphs = {role: graph.files for role, graph in pair.graphs.items()}
    with Session(device, real_bundle, graphs) as session:
        free = int(device.shell("df -k /data").stdout.splitlines()[-1].split()[3])
        assert device.shell(f"head -c {free - 300}k /dev/zero > /data/filler").exit_code == 0
        try:
            yield session
        finally:
            device.shell("rm /data/filler")
    assert left_running(device.serial) == ""


@pytest.mark.parametrize("mode", ["outputs", "profile"])
def test_faults_data_fills_up_during_the_run(nearly_full: Session, pair, mode, survived) -> None:
    """/data fills up during the run"""
    specs = {role: graph.spec for role, graph in pair.graphs.items()}
    frame = Call("frame", {"image": load_golden(pair).image(0)})
    calls = plan_calls(specs, [frame] * (400 if mode == "outputs" else 1))
    with pytest.raises(DeviceError) as caught:
        nearly_full.start(Plan(mode, calls, runs=400, limit_seconds=100))
    broken(caught, "space")
    survived(caught.value)


def test_faults_slow_link(bad_wire, phone, fake, survived) -> None:
    """The link to the phone carries 50 kB in a second"""
    fake.behave(bad_wire.serial, result(GOOD))
    bad_wire.slow(50_000)
    with fake.session(bad_wire.serial) as session:
        assert session.start(PLAN).mode == "outputs"
    survived("it takes longer, and what is measured on the phone is the same")


def test_faults_link_too_slow(bad_wire, tmp_path, monkeypatch, survived) -> None:
    """The link to the phone is too slow for what must go over it"""
    monkeypatch.setattr(shells, "TRANSFER_LIMIT_S", 1.0)
    monkeypatch.setenv("ADB_COMPRESSION", "none")
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(1 << 20))
    bad_wire.slow(50_000)
    with pytest.raises(DeviceError) as caught:
        AdbDevice(bad_wire.serial).push([path], "/data/local/tmp")
    broken(caught, "adb push of 1.0 MB took longer than 5 s", "faster")
    bad_wire.slow(1e9)
    AdbDevice(bad_wire.serial).shell("rm -f /data/local/tmp/large.bin")
    survived(caught.value)


def test_faults_adb_server_of_another_version(
    phone, adb_server: int, fake, monkeypatch, survived
) -> None:
    """adb's server is of another version than the adb program"""
    with fake.session(phone.serial):
        pass  # everything lies there now
    other = wire.OtherServer(adb_server, 39)
    # Only here: what looks at the phone after the test must find its own server again.
    with monkeypatch.context() as environment:
        environment.setenv("ANDROID_ADB_SERVER_PORT", str(other.port))
        with pytest.raises(DeviceError) as caught, fake.session(phone.serial):
            pass
        found = CliRunner().invoke(app, ["doctor", "--device", "adb", "--json"])
    other.close()
    broken(caught, "version 39", "version 41", "ADBUTILS_ADB_PATH")
    assert not other.killed, "whose phones are on it keeps them"
    (finding,) = (f for f in json.loads(found.stdout)["findings"] if f["name"] == "adb's server")
    assert "version 39" in finding["detail"]
    survived(caught.value)


def test_faults_escape_codes_in_properties(phone, pair, real_bundle, tmp_path, survived) -> None:
    """The phone's properties hold escape codes, markup and line breaks"""
    path = "/system/etc/properties"
    was = phone.read(path)
    lies = {
        "ro.product.model": "\x1b]0;title\x07\x1b[2J[/] [red]Pixel",
        "ro.soc.model": "SM7325\x9b31m",
        "ro.product.manufacturer": "‮evil\r[ro.soc.model]: [SM8550]",
    }
    try:
        phone.set(path, "\n".join([was, *(f"{name}={value}" for name, value in lies.items())]))
        report = tmp_path / "latency.json"
        quick = ("--runs", "1", "--seconds", "0", "--warmup", "0", "--clip-lengths", "1")
        place = ("--report", str(report))
        outputs = [
            CliRunner().invoke(app, list(words), catch_exceptions=False)
            for words in (
                ("devices",),
                ("devices", "--json"),
                ("doctor", "--device", "adb"),
                ("bench", str(pair.folder), "--device", "adb", *quick, *place),
            )
        ]
    finally:
        phone.set(path, was)
    assert [done.exit_code for done in outputs] == [0, 0, 0, 4]
    device = json.loads(report.read_text())["device"]
    assert (device["model"], device["soc"]) == ("]0;title[2J[/] [red]Pixel", "SM732531m")
    for text in (*(done.output for done in outputs), report.read_text()):
        assert text.replace("\n", "").isprintable()
    survived("they are left out, and what remains is shown as it is")


def test_faults_several_benches_beside_a_liar(
    phone, other_phone, connect, pair, real_bundle, tmp_path: Path, survived
) -> None:
    """Several benches on several phones at once, one of which lies"""
    second, third = other_phone("8gen2"), other_phone("no-fp16")
    adb("disconnect", third.serial)
    liar = wire.Wire(third.port)
    liar.damage(b'"ok":true', b'"ok":1e99', 1, way="down")
    reach(liar.serial, connect)
    serials = [phone.serial, liar.serial, second.serial]
    quick = ("--runs", "1", "--seconds", "0", "--warmup", "0", "--clip-lengths", "1")
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "mobileinst_deploy", "bench", str(pair.folder), "--json"),
                *("--device", "adb", "--serial", serial, *quick),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        )
        for serial in serials
    ]
    said = [process.communicate(timeout=300) for process in running]
    liar.close()
    codes = [process.returncode for process in running]
    assert codes == [4, EXIT_NO_DEVICE, 4], said
    documents = [json.loads(out) for out, _ in said]
    for which in (0, 2):
        assert documents[which]["device"]["serial"] == serials[which]
        assert all("asks for" in reason for reason in documents[which]["invalid"])
        name = f"adb-{serials[which].replace(':', '-')}-onnxruntime-plain"
        kept = json.loads((pair.folder / "results" / name / "latency.json").read_text())
        assert kept["device"]["serial"] == serials[which]
    assert len(list((tmp_path / "mobileinst" / "history").iterdir())) == 2
    cause = documents[1]["error"]["cause"]
    assert "cannot be read" in cause
    assert left_running(second.serial) == ""
    survived(f"the others measure; of the liar: {cause}", EXIT_NO_DEVICE)


def test_the_table_names_every_fault_once() -> None:
    rows = [line for line in faultlist.FAULTS.read_text().splitlines() if line.startswith("| ")]
    names = [row.split(" | ")[0] for row in rows]
    assert len(names) == len(set(names))
