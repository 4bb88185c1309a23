"""Every device that adb knows, with what it tells of itself."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.phone.adb import ListedDevice
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import read_phone


@dataclass(frozen=True)
class Overview:
    """One device.

    Attributes:
        listed: As adb lists it.
        facts: What it is; None when it cannot be asked.
        state: How it is; None when it cannot be asked.
        problem: Why it cannot be asked, or None.
        next_step: What to do about that, or None.
    """

    listed: ListedDevice
    facts: DeviceFacts | None = None
    state: DeviceState | None = None
    problem: str | None = None
    next_step: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "serial": self.listed.serial,
            "adb_state": self.listed.state,
            "problem": self.problem,
            "next_step": self.next_step,
            "facts": None if self.facts is None else self.facts.to_dict(),
            "state": None if self.state is None else self.state.to_dict(),
        }


def overview(listed: Sequence[ListedDevice]) -> tuple[Overview, ...]:
    """Ask every usable device at once; one that fails says why in its own row."""
    if not listed:
        return ()
    with ThreadPoolExecutor(max_workers=min(len(listed), 16)) as pool:
        return tuple(pool.map(_ask, listed))


def _ask(device: ListedDevice) -> Overview:
    if not device.usable:
        problem, next_step = device.problem()
        return Overview(device, problem=problem, next_step=next_step)
    try:
        facts, state = read_phone(AdbDevice(device.serial))
    except DeviceError as error:
        return Overview(device, problem=error.cause, next_step=error.next_step)
    return Overview(device, facts, state)
