"""Faults before a phone is reached: adb itself, and devices in states that take no commands."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import faultlist
import pytest
from wire import OddPhone

from mobileinst_deploy.core.errors import EXIT_NO_DEVICE, DeviceError
from mobileinst_deploy.phone.adb import choose_devices, list_devices
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import read_phone

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]


def refused(survived: Callable[..., None], *words: str, **choice: object) -> None:
    """Choosing a device fails with a sentence that holds these words, and exit code 3."""
    with pytest.raises(DeviceError) as caught:
        choose_devices(**choice)  # type: ignore[arg-type]
    assert caught.value.exit_code == EXIT_NO_DEVICE
    for word in words:
        assert word in str(caught.value)
    survived(caught.value)


def test_no_adb_program(monkeypatch, tmp_path: Path, survived) -> None:
    """There is no adb program"""
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(tmp_path / "adb"))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")  # nobody listens there
    refused(survived, "no adb program", "adbutils")


def test_adb_does_not_start(monkeypatch, tmp_path: Path, survived) -> None:
    """adb's server does not start"""
    broken = tmp_path / "adb"
    broken.write_text("#!/bin/sh\necho 'adb: cannot bind' >&2\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(broken))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    refused(survived, "cannot bind", "adb start-server")


@pytest.mark.parametrize(
    "port",
    ["", "adb", "70000", "-1", "\u0663", "5" * 5000],
    ids=["empty", "word", "too high", "negative", "other digits", "of 5000 digits"],
)
def test_adb_port_is_no_port(monkeypatch, port: str, survived) -> None:
    """ANDROID_ADB_SERVER_PORT is no port"""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    refused(survived, "ANDROID_ADB_SERVER_PORT", "5037")


def test_something_else_listens_on_adbs_port(monkeypatch, survived) -> None:
    """Something else listens on adb's port"""
    other = OddPhone("silent")
    monkeypatch.setattr("mobileinst_deploy.phone.adb.CONNECT_LIMIT_S", 1.0)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", other.serial.rpartition(":")[2])
    refused(survived, "the adb server stopped answering")
    other.close()


def test_no_device(adb_server, survived) -> None:
    """No device is connected"""
    assert list_devices() == ()
    refused(survived, "adb sees no device", "USB debugging")


def test_no_device_for_all(adb_server, survived) -> None:
    """No device is connected, and all are asked for"""
    refused(survived, "adb sees no device", every=True)


def test_two_devices_and_no_serial(phone, other_phone, survived) -> None:
    """Two devices are connected and none is named"""
    second = other_phone("8gen2")
    refused(survived, phone.serial, second.serial, "--serial")


@pytest.mark.parametrize(
    "serial",
    ["R58M", "R58M with space", "$(exit 1)", "'; rm -rf / #", "a\nb", "x" * 5000, "Ω"],
    ids=["unknown", "space", "command", "quote", "line break", "long", "not ASCII"],
)
def test_serial_that_is_not_there(phone, serial: str, survived) -> None:
    """The named serial is not connected"""
    refused(survived, "adb sees no device", phone.serial, serials=[serial])


STATES = {
    "unauthorized": "has not authorised this computer",
    "silent": "is offline",
    "recovery": "is in recovery mode",
    "bootloader": "is in its bootloader",
    "sideload": "is in sideload mode",
    "nonsense": "is in the state 'host'",
}


@pytest.mark.parametrize("kind", STATES)
def test_unusable_state(odd_phone, kind: str, survived) -> None:
    """The device takes no commands"""
    serial = odd_phone(kind)
    refused(survived, serial, STATES[kind])
    refused(survived, serial, STATES[kind], serials=[serial])


def test_unusable_device_beside_a_usable_one(phone, odd_phone, survived) -> None:
    """An unauthorised device lies beside a usable one: that one is used"""
    odd_phone("unauthorized")
    assert [d.serial for d in choose_devices()] == [phone.serial]
    assert [d.serial for d in choose_devices(every=True)] == [phone.serial]
    survived("the usable one is measured")


def test_phone_that_never_answers(odd_phone, survived) -> None:
    """The phone accepts commands and never answers"""
    device = AdbDevice(odd_phone("device"))
    with pytest.raises(DeviceError) as caught:
        device.shell("true", limit_s=1)
    assert caught.value.exit_code == EXIT_NO_DEVICE
    survived(caught.value)


def test_command_longer_than_its_limit(phone, survived) -> None:
    """A command takes longer than its limit"""
    with pytest.raises(DeviceError, match="took longer than 1 s") as caught:
        AdbDevice(phone.serial).shell("sleep 60", limit_s=1)
    survived(caught.value)


def test_endless_output(phone, monkeypatch, survived) -> None:
    """A command prints without end"""
    monkeypatch.setattr("mobileinst_deploy.phone.shell.MOST_OUTPUT_BYTES", 1 << 20)
    with pytest.raises(DeviceError, match="printed more than 1 MB") as caught:
        AdbDevice(phone.serial).shell("while :; do echo mobileinst mobileinst; done")
    survived(caught.value)


def test_state_of_a_phone_that_lies(phone, survived) -> None:
    """The phone's thermal sensor prints nonsense: it counts as unknown"""
    path = "/sys/class/thermal/thermal_zone0/temp"
    was = phone.read(path)
    try:
        phone.set(path, "warm\x1b[2J\n[ro.soc.model]: [SM7325]")
        facts, state = read_phone(AdbDevice(phone.serial))
    finally:
        phone.set(path, was)
    assert "cpu-0-0-usr" not in (state.zones_celsius or {})
    assert facts.soc == "SM7325"
    survived("the measurement goes on, the zone is null in the report")


def test_every_fault_is_in_the_table(request: pytest.FixtureRequest) -> None:
    items = [i for i in request.session.items if "survived" in getattr(i, "fixturenames", ())]
    missing = {faultlist.title(i) for i in items} - faultlist.titles_in_table()
    assert not missing, "run: MOBILEINST_WRITE_FAULTS=1 pytest tests/device -k fault"
