"""Asks a phone what it is and how it is: chip, cores, clocks, temperatures, battery.

Everything is read through the shell without root, in one go. A phone says what it likes: nothing it
prints is believed beyond its form, and what cannot be read is None, which means unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.text import whole
from mobileinst_deploy.measure.device import (
    THERMAL_STATUS,
    DeviceFacts,
    DeviceState,
    cores_of,
    printable,
    zones_of,
)
from mobileinst_deploy.phone.shell import AdbDevice

NEEDED_ABI = "arm64-v8a"

#: What half-precision arithmetic is called among a core's features.
HALF_FEATURE = "asimdhp"

_LIMIT_S = 30.0
_MOST_FEATURES = 200
_EMULATED_HARDWARE = frozenset({"goldfish", "ranchu", "cutf_cvm", "cutf", "vbox86", "vsoc_x86"})

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
while read -r line; do case $line in Features*) echo "isa ${line#*:}";; esac; done < /proc/cpuinfo
dumpsys battery | while read -r line; do echo "battery $line"; done
dumpsys thermalservice | while read -r line; do case $line in
  "Thermal Status:"*|Temperature*mType=3*) echo "thermal $line";; esac; done
dumpsys power | grep -m 1 mWakefulness= | while read -r line; do echo "power $line"; done
true
"""


def read_phone(device: AdbDevice) -> tuple[DeviceFacts, DeviceState]:
    """Ask a phone what it is and how it is.

    Raises:
        DeviceError: It went away.
    """
    said = device.shell(_SCRIPT, limit_s=_LIMIT_S)
    return parse_phone(device.serial, said.stdout)


def parse_phone(serial: str, text: str) -> tuple[DeviceFacts, DeviceState]:
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
        _facts(serial, properties, _common(lines.get("isa", []))),
        DeviceState(
            cores=cores_of(lines.get("core", []), files),
            zones_celsius=zones_of(files),
            memory_bytes=_kib(lines.get("memory", []), "MemTotal"),
            available_bytes=_kib(lines.get("memory", []), "MemAvailable"),
            **_thermal(lines.get("thermal", [])),
            **_battery(lines.get("battery", [])),
            awake=_awake(lines.get("power", [])),
        ),
    )


def check_abi(facts: DeviceFacts) -> None:
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


def check_arithmetic(facts: DeviceFacts, runtime: str) -> None:
    """Refuse a phone whose cores cannot compute what a runtime computes in.

    Raises:
        DeviceError: They have no half-precision arithmetic, and the runtime is ``ncnn-fp16``. A
            phone that does not say is given the benefit: the runner looks again.
    """
    if runtime == "ncnn-fp16" and facts.features and HALF_FEATURE not in facts.features:
        raise DeviceError(
            f"the phone {facts.serial} has a core without half-precision arithmetic (ARMv8.2 FP16),"
            " which ncnn-fp16 needs",
            "Use --runtime ncnn there, or a newer phone",
        )


def check_memory(facts: DeviceFacts, state: DeviceState, graph_bytes: int) -> None:
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


def _facts(serial: str, properties: Mapping[str, str], features: tuple[str, ...]) -> DeviceFacts:
    def text(*names: str) -> str | None:
        values = (printable(properties.get(name, "")) for name in names)
        return next((v for v in values if v), None)

    abis = text("ro.product.cpu.abilist", "ro.product.cpu.abi") or ""
    emulated = (
        properties.get("ro.kernel.qemu") == "1"
        or properties.get("ro.boot.qemu") == "1"
        or properties.get("ro.hardware") in _EMULATED_HARDWARE
        or "emulator" in properties.get("ro.build.characteristics", "")
        or serial.startswith("emulator-")
    )
    return DeviceFacts(
        kind="adb",
        serial=serial,
        manufacturer=text("ro.product.manufacturer"),
        model=text("ro.product.model"),
        soc=text("ro.soc.model", "ro.board.platform"),
        android=text("ro.build.version.release"),
        abis=tuple(a.strip() for a in abis.split(",") if a.strip()),
        emulated=emulated,
        features=features,
    )


def _common(cores: list[str]) -> tuple[str, ...]:
    """The features that every core has, in order."""
    each = [[w for w in core.split() if re.fullmatch(r"[a-z0-9]{1,20}", w)] for core in cores]
    shared = set(each[0]).intersection(*each[1:]) if each else set()
    return tuple(sorted(shared))[:_MOST_FEATURES]


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
    tenths = whole(values.get("temperature", ""), -400, 1500)
    powered = [v for k, v in values.items() if k.endswith("powered")]
    return {
        "battery_percent": whole(values.get("level", ""), 0, 100),
        "battery_celsius": None if tenths is None else tenths / 10,
        "battery_uah": whole(values.get("Charge counter", ""), 1, 100_000_000),
        "battery_mv": whole(values.get("voltage", ""), 1000, 20_000),
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
