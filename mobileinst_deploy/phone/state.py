"""What a phone is and how it is: chip, cores, clocks, temperatures, battery.

Everything is read through the shell without root, in one go. A phone says what it likes: nothing it
prints is believed beyond its form, and what cannot be read is None, which means unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.phone.shell import AdbDevice

PAPER_SOC = "SM7325"
NEEDED_ABI = "arm64-v8a"

_LIMIT_S = 30.0
_MOST_CORES = 64
_MOST_ZONES = 256
_EMULATED_HARDWARE = frozenset({"goldfish", "ranchu", "cutf_cvm", "cutf", "vbox86", "vsoc_x86"})
#: Android's names of PowerManager's thermal status.
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

# mksh's `read` is a builtin: no process is started for the hundred small files.
_SCRIPT = r"""
show() { for f in "$@"; do v=; read -r v 2>/dev/null < "$f" && echo "file $f=$v"; done; }
getprop | while read -r line; do case $line in "[ro."*) echo "prop $line";; esac; done
cd /sys/devices/system/cpu && for c in cpu[0-9] cpu[0-9][0-9]; do
  show $c/online $c/cpufreq/cpuinfo_min_freq $c/cpufreq/cpuinfo_max_freq \
    $c/cpufreq/scaling_max_freq $c/cpufreq/scaling_cur_freq $c/cpufreq/scaling_governor
  [ -d $c ] && echo "core $c"
done
cd /sys/class/thermal && for z in thermal_zone*; do show $z/type $z/temp; done
while read -r line; do case $line in MemTotal*|MemAvailable*) echo "memory $line";; esac
done < /proc/meminfo
dumpsys battery | while read -r line; do echo "battery $line"; done
dumpsys thermalservice | while read -r line; do case $line in
  "Thermal Status:"*|Temperature*mType=3*) echo "thermal $line";; esac; done
dumpsys power | grep -m 1 mWakefulness= | while read -r line; do echo "power $line"; done
true
"""


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
class PhoneFacts:
    """What does not change while a phone runs.

    Attributes:
        serial: adb's name for it.
        manufacturer: Who built it.
        model: Its name in the shops.
        soc: The chip's part number, such as ``SM7325``.
        android: Android's version, such as ``13``.
        abis: Instruction sets, the preferred one first.
        emulated: Whether it is an emulator, whose times must never be shown as latencies.
    """

    serial: str
    manufacturer: str | None
    model: str | None
    soc: str | None
    android: str | None
    abis: tuple[str, ...]
    emulated: bool

    @property
    def comparable(self) -> str | None:
        """Why its latencies cannot be compared with the paper's, or None if they can."""
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
            "comparable_with_paper": self.comparable is None,
            "not_comparable_because": self.comparable,
        }


@dataclass(frozen=True)
class PhoneState:
    """What changes: clocks, heat, battery.

    Attributes:
        cores: In order of their numbers.
        zones_celsius: Temperature of each readable thermal zone by type.
        skin_celsius: Android's skin temperature.
        thermal_status: 0 (none) to 6 (shutdown); above 0 Android throttles.
        battery_percent: Charge, 0 to 100.
        battery_celsius: The battery's temperature.
        charging: Whether it is on power.
        awake: Whether the screen is on.
        memory_bytes: All of its memory.
        available_bytes: Memory that a program could get now.
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

    @property
    def celsius(self) -> float | None:
        """How warm the phone is: the warmer of battery and skin; None when both are unknown.

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


def read_phone(device: AdbDevice) -> tuple[PhoneFacts, PhoneState]:
    """Ask a phone what it is and how it is.

    Raises:
        DeviceError: It went away.
    """
    said = device.shell(_SCRIPT, limit_s=_LIMIT_S)
    return parse_phone(device.serial, said.stdout)


def parse_phone(serial: str, text: str) -> tuple[PhoneFacts, PhoneState]:
    """Understand what the script printed; unreadable parts become None, never an error."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        lines.setdefault(kind, []).append(rest)
    properties = {}
    for line in lines.get("prop", ()):
        found = re.fullmatch(r"\[([\w.-]{1,100})\]: \[(.{0,200})\]", line)
        if found:
            properties[found.group(1)] = found.group(2)
    files = dict(line.partition("=")[::2] for line in lines.get("file", ()))
    return (
        _facts(serial, properties),
        PhoneState(
            cores=_cores(lines.get("core", []), files),
            zones_celsius=_zones(files),
            memory_bytes=_kib(lines.get("memory", []), "MemTotal"),
            available_bytes=_kib(lines.get("memory", []), "MemAvailable"),
            **_thermal(lines.get("thermal", [])),
            **_battery(lines.get("battery", [])),
            awake=_awake(lines.get("power", [])),
        ),
    )


def check_abi(facts: PhoneFacts) -> None:
    """Refuse a phone whose system cannot run the bundle.

    Raises:
        DeviceError: It is not an arm64 system. A phone that does not say is given the benefit.
    """
    if facts.abis and NEEDED_ABI not in facts.abis:
        raise DeviceError(
            f"the phone {facts.serial} runs {facts.abis[0]} programs and the bundle is for"
            f" {NEEDED_ABI}",
            "Use a phone with a 64-bit system",
        )


def check_memory(facts: PhoneFacts, state: PhoneState, graph_bytes: int) -> None:
    """Refuse a model that the phone's memory cannot hold, before Android ends other apps for it.

    ONNX Runtime holds the file and its own copy of the weights at once while it loads a graph.

    Raises:
        DeviceError: It does not fit. A phone that does not say is given the benefit.
    """
    needed = 2 * graph_bytes + (64 << 20)
    if state.available_bytes is not None and state.available_bytes < needed:
        raise DeviceError(
            f"the phone {facts.serial} has {state.available_bytes >> 20} MB of memory free and the"
            f" model needs about {needed >> 20} MB",
            "Close other apps on the phone, or use a smaller model",
        )


def _facts(serial: str, properties: Mapping[str, str]) -> PhoneFacts:
    def text(*names: str) -> str | None:
        values = (_printable(properties.get(name, "")) for name in names)
        return next((v for v in values if v), None)

    abis = text("ro.product.cpu.abilist", "ro.product.cpu.abi") or ""
    emulated = (
        properties.get("ro.kernel.qemu") == "1"
        or properties.get("ro.boot.qemu") == "1"
        or properties.get("ro.hardware") in _EMULATED_HARDWARE
        or "emulator" in properties.get("ro.build.characteristics", "")
        or serial.startswith("emulator-")
    )
    return PhoneFacts(
        serial=serial,
        manufacturer=text("ro.product.manufacturer"),
        model=text("ro.product.model"),
        soc=text("ro.soc.model", "ro.board.platform"),
        android=text("ro.build.version.release"),
        abis=tuple(a.strip() for a in abis.split(",") if a.strip()),
        emulated=emulated,
    )


def _cores(listed: list[str], files: Mapping[str, str]) -> tuple[Core, ...]:
    cores = {}
    for name in listed:
        found = re.fullmatch(r"cpu(\d{1,2})", name)
        if not found or int(found.group(1)) >= _MOST_CORES:
            continue

        def khz(file: str, folder: str = name) -> int | None:
            # 10 MHz to 10 GHz: anything else is no clock.
            return _number(files.get(f"{folder}/cpufreq/{file}", ""), 10_000, 10_000_000)

        index = int(found.group(1))
        cores[index] = Core(
            index=index,
            # Core 0 often has no such file: it cannot be switched off.
            online=files.get(f"{name}/online", "1") != "0",
            min_khz=khz("cpuinfo_min_freq"),
            max_khz=khz("cpuinfo_max_freq"),
            allowed_khz=khz("scaling_max_freq"),
            now_khz=khz("scaling_cur_freq"),
            governor=_printable(files.get(f"{name}/cpufreq/scaling_governor", ""))[:40] or None,
        )
    return tuple(cores[i] for i in sorted(cores))


def _zones(files: Mapping[str, str]) -> dict[str, float]:
    zones: dict[str, float] = {}
    for path, value in files.items():
        found = re.fullmatch(r"(thermal_zone\d{1,3})/temp", path)
        raw = _number(value, -273_000, 1_000_000) if found else None
        if found is None or raw is None or len(zones) >= _MOST_ZONES:
            continue
        # Most kernels say thousandths of a degree, some tenths or whole degrees.
        celsius = raw / 1000 if abs(raw) >= 1000 else raw / 10 if abs(raw) >= 150 else float(raw)
        name = _printable(files.get(f"{found.group(1)}/type", ""))[:60] or found.group(1)
        if -40 <= celsius <= 150:  # switched-off sensors say things like -274 or 200
            zones[name] = celsius
    return zones


def _thermal(lines: list[str]) -> dict[str, Any]:
    status, skin = None, None
    for line in lines:
        found = re.fullmatch(r"Thermal Status: (\d)", line)
        if found and int(found.group(1)) < len(THERMAL_STATUS):
            status = int(found.group(1))
        found = re.search(r"mValue=(-?\d{1,3}(?:\.\d{1,9})?),.*mType=3\b", line)
        if found:
            # Android lists cached values before the sensors' own: the last one is the newest.
            skin = _celsius(float(found.group(1)))
    return {"thermal_status": status, "skin_celsius": skin}


def _battery(lines: list[str]) -> dict[str, Any]:
    values = dict(line.partition(": ")[::2] for line in lines)
    tenths = _number(values.get("temperature", ""), -400, 1500)
    powered = [v for k, v in values.items() if k.endswith("powered")]
    return {
        "battery_percent": _number(values.get("level", ""), 0, 100),
        "battery_celsius": None if tenths is None else tenths / 10,
        "charging": None if not powered else "true" in powered,
    }


def _awake(lines: list[str]) -> bool | None:
    found = re.search(r"mWakefulness=(Awake|Asleep|Dozing|Dreaming)", " ".join(lines))
    return None if found is None else found.group(1) in ("Awake", "Dreaming")


def _kib(lines: list[str], name: str) -> int | None:
    for line in lines:
        found = re.fullmatch(rf"{name}: +(\d{{1,12}}) kB", line)
        if found:
            return int(found.group(1)) * 1024
    return None


def _celsius(value: float) -> float | None:
    return value if math.isfinite(value) and -40 <= value <= 150 else None


def _number(text: str, low: int, high: int) -> int | None:
    text = text.strip()
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        return None
    value = int(text)
    return value if low <= value <= high else None


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable()).strip()[:120]
