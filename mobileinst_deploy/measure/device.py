"""What a measured device is and how it was: this machine or a phone, in the same terms.

Whoever asks a device (the phone's shell, this machine's files) fills these records; what it does
not tell is None, which means unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mobileinst_deploy.core.text import whole

PAPER_SOC = "SM7325"
#: Android's names of PowerManager's thermal status.
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

_MOST_CORES = 1024
_MOST_ZONES = 256


@dataclass(frozen=True)
class Core:
    """One processor core.

    Attributes:
        index: Its number, from 0.
        online: Whether the kernel uses it.
        min_khz: Lowest clock of its hardware, kHz.
        max_khz: Highest clock of its hardware, kHz.
        allowed_khz: Highest clock allowed now, kHz; heat lowers it.
        now_khz: Clock now, kHz.
        governor: What sets the clock.
    """

    index: int
    online: bool
    min_khz: int | None = None
    max_khz: int | None = None
    allowed_khz: int | None = None
    now_khz: int | None = None
    governor: str | None = None


@dataclass(frozen=True)
class DeviceFacts:
    """What does not change while a device runs.

    Attributes:
        kind: ``host``: this machine; ``adb``: a phone.
        serial: adb's name of a phone; ``cpu`` for this machine.
        manufacturer: Who built it.
        model: Its name in the shops.
        soc: The chip's part number, such as ``SM7325``; a host's processor.
        android: Android's version, such as ``13``; None on a host.
        abis: Instruction sets, the preferred one first.
        emulated: Whether it is an emulator, whose times must never be shown as latencies.
        features: What every core's instruction set has, in Linux's words, such as ``asimdhp``;
            empty where it does not say.
    """

    kind: Literal["host", "adb"]
    serial: str
    manufacturer: str | None
    model: str | None
    soc: str | None
    android: str | None
    abis: tuple[str, ...]
    emulated: bool
    features: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As reports name a device: ``cpu``, or ``adb:SERIAL``."""
        return self.serial if self.kind == "host" else f"adb:{self.serial}"

    @property
    def comparable(self) -> str | None:
        """Why its latencies cannot be compared with the paper's, or None if they can."""
        if self.kind == "host":
            return "a host, and no phone"
        if self.emulated:
            return "emulated"
        if self.soc != PAPER_SOC:
            return (
                f"{self.soc or 'an unknown SoC'}, and the paper has {PAPER_SOC} (Snapdragon 778G)"
            )
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            **asdict(self),
            "abis": list(self.abis),
            "features": list(self.features),
            "comparable_with_paper": self.comparable is None,
            "not_comparable_because": self.comparable,
        }


@dataclass(frozen=True)
class DeviceState:
    """What changes: clocks, heat, battery, load.

    Attributes:
        cores: In order of their numbers.
        zones_celsius: Temperature of each readable thermal zone by type.
        skin_celsius: Android's skin temperature.
        thermal_status: 0 (none) to 6 (shutdown); above 0 Android throttles.
        battery_percent: Charge, 0 to 100.
        battery_celsius: The battery's temperature.
        battery_uah: Charge that its gauge counts, microampere-hours.
        battery_mv: The battery's voltage, mV.
        charging: Whether it is on power.
        awake: Whether the screen is on.
        memory_bytes: All of its memory.
        available_bytes: Memory that a program could get now.
        load_1min: Processes that wanted to run, over the last minute.
    """

    cores: tuple[Core, ...] = ()
    zones_celsius: Mapping[str, float] | None = None
    skin_celsius: float | None = None
    thermal_status: int | None = None
    battery_percent: int | None = None
    battery_celsius: float | None = None
    charging: bool | None = None
    awake: bool | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    load_1min: float | None = None
    battery_uah: int | None = None
    battery_mv: int | None = None

    @property
    def celsius(self) -> float | None:
        """How warm a phone is: the warmer of battery and skin; None when both are unknown.

        CPU zones are left out: they jump by 20 degrees within a second of any load.
        """
        known = [v for v in (self.battery_celsius, self.skin_celsius) if v is not None]
        return max(known) if known else None

    def core(self, index: int) -> Core | None:
        """The core with this number."""
        return next((c for c in self.cores if c.index == index), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; null means unknown."""
        return {**asdict(self), "zones_celsius": dict(self.zones_celsius or {})}


def cores_of(names: Sequence[str], files: Mapping[str, str]) -> tuple[Core, ...]:
    """The cores that the kernel lists under ``/sys/devices/system/cpu``.

    Args:
        names: Of its folders, such as ``cpu0``; others are passed over.
        files: Contents by path inside that folder; nothing in them is believed beyond its form.
    """
    cores = {}
    for name in names:
        found = re.fullmatch(r"cpu(\d{1,4})", name)
        if not found or int(found[1]) >= _MOST_CORES:
            continue

        def khz(file: str, folder: str = name) -> int | None:
            # 10 MHz to 10 GHz: anything else is no clock.
            return whole(files.get(f"{folder}/cpufreq/{file}", ""), 10_000, 10_000_000)

        index = int(found[1])
        cores[index] = Core(
            index=index,
            # Core 0 often has no such file: it cannot be switched off.
            online=files.get(f"{name}/online", "1").strip() != "0",
            min_khz=khz("cpuinfo_min_freq"),
            max_khz=khz("cpuinfo_max_freq"),
            allowed_khz=khz("scaling_max_freq"),
            now_khz=khz("scaling_cur_freq"),
            governor=printable(files.get(f"{name}/cpufreq/scaling_governor", ""))[:40] or None,
        )
    return tuple(cores[i] for i in sorted(cores))


def zones_of(files: Mapping[str, str]) -> dict[str, float]:
    """Temperatures by zone's type, of files under ``/sys/class/thermal`` by path inside it."""
    zones: dict[str, float] = {}
    for path, value in files.items():
        found = re.fullmatch(r"(thermal_zone\d{1,3})/temp", path)
        raw = whole(value, -273_000, 1_000_000) if found else None
        if found is None or raw is None or len(zones) >= _MOST_ZONES:
            continue
        # Most kernels say thousandths of a degree, some tenths or whole degrees.
        celsius = raw / 1000 if abs(raw) >= 1000 else raw / 10 if abs(raw) >= 150 else float(raw)
        name = printable(files.get(f"{found[1]}/type", ""))[:60] or found[1]
        if -40 <= celsius <= 150:  # switched-off sensors say things like -274 or 200
            zones[name] = celsius
    return zones


def printable(text: str) -> str:
    """What can be shown of a text that a device wrote, at most 120 characters."""
    return "".join(c for c in text if c.isprintable()).strip()[:120]
