"""Faults of odd phones: they greet, their time is wrong, their folders lead elsewhere, they lie."""

from __future__ import annotations

import pytest
from test_faults_bench import bench

from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import read_phone
from mobileinst_deploy.phone.storage import REMOTE_ROOT, clean_phone

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]


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
