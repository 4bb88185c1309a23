"""What the real adb says of real and odd phones, and what a shell on one is good for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import wire

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.phone.adb import choose_devices, list_devices
from mobileinst_deploy.phone.overview import overview
from mobileinst_deploy.phone.shell import AdbDevice, CancelledError
from mobileinst_deploy.phone.state import read_phone

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]


def test_the_only_phone_is_chosen(phone) -> None:
    assert [d.serial for d in choose_devices()] == [phone.serial]
    assert [d.serial for d in choose_devices([phone.serial, phone.serial])] == [phone.serial]
    assert [d.serial for d in choose_devices(every=True)] == [phone.serial]


def test_adbs_own_variable_chooses_too(phone, other_phone, monkeypatch) -> None:
    other_phone("8gen2")
    monkeypatch.setenv("ANDROID_SERIAL", phone.serial)
    assert [d.serial for d in choose_devices()] == [phone.serial]


def test_streams_stay_apart_and_exit_codes_are_real(phone) -> None:
    said = AdbDevice(phone.serial).shell("echo out; echo err >&2; exit 7")
    assert (said.stdout, said.stderr, said.exit_code) == ("out\n", "err\n", 7)


def test_standard_error_is_heard_line_by_line_while_it_runs(phone) -> None:
    heard: list[tuple[str, float]] = []
    began = time.monotonic()
    AdbDevice(phone.serial).shell(
        "echo one >&2; sleep 0.5; echo two >&2",
        on_stderr=lambda line: heard.append((line, time.monotonic() - began)),
    )
    assert [line for line, _ in heard] == ["one", "two"]
    assert heard[1][1] - heard[0][1] > 0.3


def test_bytes_that_are_no_text_do_no_harm(phone) -> None:
    said = AdbDevice(phone.serial).shell(r"printf '\377\000\033[31mred'")
    assert said.exit_code == 0
    assert "red" in said.stdout


def test_a_command_can_be_stopped_from_another_thread(phone) -> None:
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(CancelledError):
        AdbDevice(phone.serial, cancel).shell("sleep 60")


def test_files_go_there_and_back_unchanged(phone, tmp_path: Path) -> None:
    device = AdbDevice(phone.serial)
    source = tmp_path / "with space ; and 'quotes'"
    source.write_bytes(bytes(range(256)) * 999)
    device.push([source], "/data/local/tmp")
    (tmp_path / "back").mkdir()
    device.pull([f"/data/local/tmp/{source.name}"], tmp_path / "back", 255744)
    assert (tmp_path / "back" / source.name).read_bytes() == source.read_bytes()
    assert device.shell("rm /data/local/tmp/with*").exit_code == 0


def test_a_phone_tells_what_it_is(phone) -> None:
    facts, state = read_phone(AdbDevice(phone.serial))
    assert (facts.soc, facts.android, facts.abis[0]) == ("SM7325", "13", "arm64-v8a")
    assert facts.emulated
    assert facts.comparable == "emulated"
    assert [c.max_khz for c in state.cores] == [1900800] * 4 + [2208000] * 3 + [2400000]
    assert all(c.online and c.governor == "schedutil" for c in state.cores)
    assert (state.battery_percent, state.battery_celsius, state.charging) == (84, 27.5, True)
    assert (state.skin_celsius, state.thermal_status, state.awake) == (29.5, 0, False)
    assert state.zones_celsius == {
        "cpu-0-0-usr": 31.0,
        "cpu-1-0-usr": 31.6,
        "cpu-1-3-usr": 32.3,
        "battery": 27.5,
        "pmic-thermal": 30.0,
    }


def test_a_phone_that_tells_nothing_is_unknown_and_no_error(other_phone) -> None:
    facts, state = read_phone(AdbDevice(other_phone("silent").serial))
    assert facts.soc is None
    assert state.cores == ()
    assert state.zones_celsius == {}
    assert (state.celsius, state.thermal_status, state.battery_percent) == (None, None, None)
    assert state.awake is None


def test_the_overview_has_a_row_for_every_device(phone, odd_phone: Callable[[str], str]) -> None:
    odd = odd_phone("unauthorized")
    rows = {row.listed.serial: row for row in overview(list_devices())}
    assert rows[phone.serial].facts is not None
    assert rows[odd].facts is None
    assert rows[odd].problem == "has not authorised this computer"
    assert rows[phone.serial].to_dict()["facts"]["comparable_with_paper"] is False


def test_files_go_to_the_server_that_the_environment_names_as_commands_do(
    phone, adb_server: int, monkeypatch, tmp_path: Path
) -> None:
    between = wire.Wire(adb_server, "127.0.0.2")
    source = tmp_path / "here"
    source.write_text("there")
    # Only here: what looks at the phone after the test must find its own server again.
    with monkeypatch.context() as environment, contextlib.closing(between):
        environment.setenv("ANDROID_ADB_SERVER_HOST", "127.0.0.2")
        environment.setenv("ANDROID_ADB_SERVER_PORT", str(between.port))
        device = AdbDevice(phone.serial)
        device.push([source], "/data/local/tmp")
        assert device.shell("cat /data/local/tmp/here; rm /data/local/tmp/here").stdout == "there"


def test_a_server_elsewhere_that_does_not_answer_is_not_started_here(adb_server, monkeypatch):
    monkeypatch.setenv("ANDROID_ADB_SERVER_HOST", "127.0.0.3")
    with pytest.raises(DeviceError, match=r"adb's server on 127\.0\.0\.3.*does not answer"):
        list_devices()
