"""This machine as a measured device: what it is, how it is, and the clock of one core."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from mobileinst_deploy.core.text import whole
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState, cores_of, zones_of

_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_CORE_FILES = (
    "online",
    "cpufreq/cpuinfo_min_freq",
    "cpufreq/cpuinfo_max_freq",
    "cpufreq/scaling_max_freq",
    "cpufreq/scaling_cur_freq",
    "cpufreq/scaling_governor",
)


def host_facts() -> DeviceFacts:
    """What this machine is."""
    processor = platform.machine()
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            processor = value.strip()
            break
    return DeviceFacts(
        kind="host",
        serial="cpu",
        manufacturer=None,
        model=None,
        soc=processor,
        android=None,
        abis=(platform.machine(),),
        emulated=False,
    )


def host_state() -> DeviceState:
    """How this machine is now; None and empty where its kernel does not say."""
    names = [path.name for path in sorted(_CPU.glob("cpu[0-9]*"))]
    files = {f"{n}/{f}": text for n in names for f in _CORE_FILES if (text := _text(_CPU / n / f))}
    heat = {
        f"{zone.name}/{file}": _text(zone / file)
        for zone in sorted(_THERMAL.glob("thermal_zone*"))
        for file in ("type", "temp")
    }
    memory = {}
    for line in _text(Path("/proc/meminfo")).splitlines():
        key, _, value = line.partition(":")
        kib = whole(value.strip().removesuffix(" kB"), 0, 1 << 40)
        if kib is not None:
            memory[key] = kib * 1024
    try:
        load = float(_text(Path("/proc/loadavg")).split()[0])
    except (ValueError, IndexError):
        load = None
    return DeviceState(
        cores=cores_of(names, files),
        zones_celsius=zones_of(heat),
        memory_bytes=memory.get("MemTotal"),
        available_bytes=memory.get("MemAvailable"),
        load_1min=load,
    )


@contextlib.contextmanager
def pinned_to_one_core() -> Iterator[int | None]:
    """Keep this thread on one core that it may use, and give the old affinity back after.

    Yields:
        The core's number, read back from the kernel, or None where the system has no affinity.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    # The last allowed core: the first one takes most interrupts.
    os.sched_setaffinity(0, {max(before)})
    try:
        (core,) = os.sched_getaffinity(0)
        yield core
    finally:
        os.sched_setaffinity(0, before)


class CoreWatch:
    """Which core this thread is on, and that core's clock, read between runs.

    Args:
        core: The one that it is pinned to, or None.
    """

    def __init__(self, core: int | None) -> None:
        self._core = core
        self._where: Callable[[], int] | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._where = ctypes.CDLL(None).sched_getcpu

    def read(self) -> tuple[int | None, int | None]:
        """The core, and its clock in kHz; None where the kernel does not say."""
        cpu = self._where() if self._where is not None else -1
        found = None if cpu < 0 else cpu
        core = found if self._core is None else self._core
        if core is None:
            return found, None
        text = _text(_CPU / f"cpu{core}" / "cpufreq" / "scaling_cur_freq")
        return found, whole(text, 10_000, 10_000_000)


def affinity() -> tuple[int, ...]:
    """The cores that the kernel allows this thread now; empty where the system has no affinity."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
