"""bench --sustained on phones that warm and throttle: heat and clock are told, deadlines not."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.phone.device_bundle import DeviceBundle

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]

FEW = ("--sustained", "8", "--fps", "4", "--clip-lengths", "1", "--warmup", "1")


def mobileinst(*words: object) -> tuple[int, dict]:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.stdout, done.stderr
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize("profile", ["draining", "throttling"])
def test_a_phone_that_throttles_says_when(
    pair: ExportBundle, real_bundle: DeviceBundle, start_phone, connect, profile: str
):
    phone = start_phone(profile)  # its timeline begins with the first load
    connect(phone.serial)
    where = ("--device", "adb", "--serial", phone.serial)
    code, document = mobileinst("bench", pair.folder, *where, *FEW)
    assert code == 4, "eight seconds sustain nothing"
    assert document["emulated"]
    (clip,) = document["clips"]
    assert "the clock fell from 2400 to 1498 MHz" in clip["throttled"]
    assert not any("thermal" in why for why in document["invalid"])
    assert len(clip["readings"]) >= 3
    assert clip["readings"][-1]["thermal_status"] == 2
    samples = document["emulated_schedules"][0]["samples"]
    taken = [int(start * 4 / 1000 + 1e-6) for start in samples["start_ms"]]
    assert taken == sorted(set(taken)), "no frame is taken twice"
    if profile == "draining":
        charge = [reading["battery_uah"] for reading in clip["readings"]]
        assert charge[-1] < clip["state_before"]["battery_uah"]
        assert clip["state_after"]["battery_mv"] == 4000


@pytest.mark.parametrize(
    "words",
    [
        ("--fps", "30"),
        ("--sustained", "8", "--explain"),
        ("--sustained", "0"),
        ("--sustained", "8", "--runs", "3"),
    ],
    ids=" ".join,
)
def test_options_that_mean_nothing_are_refused(pair: ExportBundle, words: tuple[str, ...]):
    code, document = mobileinst("bench", pair.folder, *words)
    assert code == 2
    assert document["error"]["next_step"]
