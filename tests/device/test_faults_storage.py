"""Faults while files go to a phone and lie there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import adb, bundle_of, reach

from mobileinst_deploy.core.errors import EXIT_NO_DEVICE, DeviceError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.phone import storage
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice, CancelledError
from mobileinst_deploy.phone.storage import REMOTE_ROOT, RemoteFile, clean_phone, install

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]

PATTERN = b"kernels " * 40


@pytest.fixture
def file(tmp_path: Path) -> RemoteFile:
    """300 kB with a text that occurs in one place."""
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(100_000) + PATTERN + bytes(200_000))
    return RemoteFile(path, sha256_of(path), path.stat().st_size)


@pytest.fixture
def folder(phone, connect) -> Iterator[str]:
    """A content hash that no other test uses, forgotten afterwards."""
    yield "0" * 60 + "test"
    connect(phone.serial)
    AdbDevice(phone.serial).shell(f"rm -rf {REMOTE_ROOT}/{'0' * 60}test")


def failed(error: DeviceError, *words: str) -> None:
    assert error.exit_code == EXIT_NO_DEVICE
    for word in words:
        assert word in str(error)


def test_push_happens_once(phone, file, folder) -> None:
    device, told = AdbDevice(phone.serial), []
    install(device, [file], folder, lambda *progress: told.append(progress))
    assert told[0][1] == 0
    told.clear()
    install(device, [file], folder, lambda *progress: told.append(progress))
    assert [done for _, done, _ in told] == [file.bytes]


def test_push_damaged_once(bad_wire, file, folder, monkeypatch, survived) -> None:
    """A push arrives damaged"""
    monkeypatch.setenv("ADB_COMPRESSION", "none")
    bad_wire.damage(b"kernels", b"KERNELS", times=1)
    device = AdbDevice(bad_wire.serial)
    where = install(device, [file], folder)
    assert file.sha256 in device.shell(f"sha256sum {where}/*").stdout
    survived("the file is pushed again and checked again")


def test_push_damaged_always(bad_wire, file, folder, monkeypatch, survived) -> None:
    """Every push arrives damaged"""
    monkeypatch.setenv("ADB_COMPRESSION", "none")
    bad_wire.damage(b"kernels", b"KERNELS", times=1000)
    with pytest.raises(DeviceError) as caught:
        install(AdbDevice(bad_wire.serial), [file], folder)
    failed(caught.value, "weights.bin arrived damaged")
    survived(caught.value)


def test_push_cut_off_earlier(phone, file, folder, survived) -> None:
    """An earlier push was cut off in the middle"""
    device = AdbDevice(phone.serial)
    where = install(device, [file], folder)
    device.shell(f"head -c 1000 {where}/weights.bin > {where}/x; mv {where}/x {where}/weights.bin")
    install(device, [file], folder)
    assert file.sha256 in device.shell(f"sha256sum {where}/*").stdout
    survived("the file is found to be wrong and pushed again")


def test_pushed_file_changed_on_the_phone(phone, file, folder, survived) -> None:
    """A pushed file was changed on the phone, its size kept"""
    device = AdbDevice(phone.serial)
    where = install(device, [file], folder)
    device.shell(f"printf X | dd of={where}/weights.bin bs=1 seek=50 conv=notrunc")
    install(device, [file], folder)
    assert file.sha256 in device.shell(f"sha256sum {where}/*").stdout
    survived("the file is found to be wrong and pushed again")


def test_data_is_nearly_full(other_phone, tmp_path, survived) -> None:
    """/data has too little space"""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(3 << 20))
    large = RemoteFile(path, sha256_of(path), 3 << 20)
    device = AdbDevice(other_phone("full-data").serial)
    with pytest.raises(DeviceError) as caught:
        install(device, [large], "f" * 64)
    failed(caught.value, "2 MB free", "19 MB are needed", "device clean")
    survived(caught.value)


def test_data_fills_up_during_the_push(other_phone, tmp_path, monkeypatch, survived) -> None:
    """/data fills up during the push"""
    monkeypatch.setattr(storage, "_free_bytes", lambda df: None)
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(3 << 20))
    large = RemoteFile(path, sha256_of(path), 3 << 20)
    with pytest.raises(DeviceError) as caught:
        install(AdbDevice(other_phone("full-data").serial), [large], "f" * 64)
    failed(caught.value, "No space left on device", "device clean")
    survived(caught.value)


def test_data_is_read_only(other_phone, file, survived) -> None:
    """/data is read-only"""
    with pytest.raises(DeviceError) as caught:
        install(AdbDevice(other_phone("read-only").serial), [file], "f" * 64)
    failed(caught.value, "Read-only file system")
    survived(caught.value)


def test_phone_vanishes_during_the_push(bad_wire, connect, tmp_path, folder, survived) -> None:
    """The phone vanishes during the push, and comes back"""
    import random

    path = tmp_path / "large.bin"
    path.write_bytes(random.Random(0).randbytes(4 << 20))
    large = RemoteFile(path, sha256_of(path), 4 << 20)
    bad_wire.cut_after(up=1 << 20)
    with pytest.raises(DeviceError) as caught:
        install(AdbDevice(bad_wire.serial), [large], folder)
    failed(caught.value, bad_wire.serial)
    bad_wire.mend()
    device = reach(bad_wire.serial, connect)
    where = install(device, [large], folder)
    assert large.sha256 in device.shell(f"sha256sum {where}/*").stdout
    survived(caught.value)


def test_interrupted_push(bad_wire, file, folder, monkeypatch, survived) -> None:
    """Ctrl-C during the push"""

    def interrupt(label: str, done: float, total: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(AdbDevice(bad_wire.serial), [file], folder, interrupt)
    survived("Interrupted; nothing half written was left behind.", 130)


def test_stopped_push(bad_wire, tmp_path, folder, survived) -> None:
    """Ctrl-C during the push to several phones"""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(64 << 20))
    large = RemoteFile(path, sha256_of(path), 64 << 20)
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    device = AdbDevice(bad_wire.serial, cancel)
    with pytest.raises(CancelledError):
        _push_for_ever(device, large.path)
    AdbDevice(bad_wire.serial).shell("rm -f /data/local/tmp/large.bin")
    survived("Interrupted; nothing half written was left behind.", 130)


def _push_for_ever(device: AdbDevice, path: Path) -> None:
    while True:  # however fast this machine is
        device.push([path], "/data/local/tmp")


def test_stopped_fetch(phone, tmp_path, survived) -> None:
    """Ctrl-C while outputs are fetched"""
    cancel = threading.Event()
    device = AdbDevice(phone.serial, cancel)
    device.shell("head -c 3000000 /dev/zero > /data/local/tmp/large")
    cancel.set()
    with pytest.raises(CancelledError):
        device.pull(["/data/local/tmp/large"], tmp_path, 3000000)
    AdbDevice(phone.serial).shell("rm /data/local/tmp/large")
    survived("Interrupted; nothing half written was left behind.", 130)


def test_file_to_fetch_is_missing(phone, tmp_path, survived) -> None:
    """A file to fetch is not there"""
    with pytest.raises(DeviceError) as caught:
        AdbDevice(phone.serial).pull(["/data/local/tmp/nothing"], tmp_path, 0)
    failed(caught.value, "copying from the phone", "No such file")
    survived(caught.value)


def test_clean_ends_what_runs_and_removes_everything(
    phone, pair, fake_bundle, survived: Callable[..., None]
) -> None:
    """Another session's runner is at work on the phone; `device clean` ends it"""
    device = AdbDevice(phone.serial)
    run = f"{REMOTE_ROOT}/run-elsewhere"
    script = f"{run}/mobileinst_runner"
    device.shell(
        f"mkdir -p {run}; printf '#!/system/bin/sh\\nsleep 600\\n' > {script}; chmod 755 {script};"
        f"{script} </dev/null >/dev/null 2>&1 & echo $! > {run}/pid"
    )
    graphs = {role: graph.files for role, graph in pair.graphs.items()}
    with pytest.raises(DeviceError) as caught, Session(device, fake_bundle, graphs):
        pass
    failed(caught.value, "another session", "device clean")
    assert clean_phone(device) >= 0
    assert device.shell(f"ls {REMOTE_ROOT}").exit_code != 0
    survived(caught.value)


def test_bundle_lacks_a_library(phone, pair, real_bundle, tmp_path, survived) -> None:
    """The bundle lacks a library"""
    from mobileinst_deploy.phone.plan import Plan

    names = {f.name for f in real_bundle.files} - {"libstdc++.so.6", "libonnxruntime.so"}
    less = bundle_of(tmp_path, {n: (real_bundle.folder / n).read_bytes() for n in names})
    graphs = {role: graph.files for role, graph in pair.graphs.items()}
    with (
        pytest.raises(DeviceError) as caught,
        Session(AdbDevice(phone.serial), less, graphs) as session,
    ):
        session.start(Plan("outputs", ()))
    failed(caught.value, "libstdc++.so.6", "device clean")
    survived(caught.value)


def test_bundle_for_another_processor(phone, pair, fake_bundle, tmp_path, survived) -> None:
    """The runner is for another processor"""
    from mobileinst_deploy.phone.device_bundle import LOADER
    from mobileinst_deploy.phone.plan import Plan

    contents = {f.name: (fake_bundle.folder / f.name).read_bytes() for f in fake_bundle.files}
    contents[LOADER] = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(200)
    graphs = {role: graph.files for role, graph in pair.graphs.items()}
    with (
        pytest.raises(DeviceError) as caught,
        Session(AdbDevice(phone.serial), bundle_of(tmp_path, contents), graphs) as session,
    ):
        session.start(Plan("outputs", ()))
    failed(caught.value, "does not start")
    survived(caught.value)


def test_adb_server_ends_during_the_push(phone, connect, tmp_path, folder, survived) -> None:
    """adb's server is ended during the push"""

    def end_it(label: str, done: float, total: float | None) -> None:
        adb("kill-server")

    path = tmp_path / "any.bin"
    path.write_bytes(b"any")
    with pytest.raises(DeviceError) as caught:
        install(AdbDevice(phone.serial), [RemoteFile(path, sha256_of(path), 3)], folder, end_it)
    assert caught.value.exit_code == EXIT_NO_DEVICE
    connect(phone.serial)
    survived(caught.value)
