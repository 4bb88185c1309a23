"""A phone's profile: one TOML file that says what the phone looks like from its shell."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROFILES = Path(__file__).parent / "profiles"
#: What its cores are unless the profile says otherwise: qemu's model, and Linux's words for it.
CPU = "cortex-a76"
FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)
FIELDS = {
    "title",
    "properties",
    "cluster",
    "thermal",
    "battery",
    "memory",
    "data",
    "affinity",
    "timeline",
    "wakefulness",
    "unreadable",
    "cpu",
    "banner",
}


@dataclass(frozen=True)
class Profile:
    """What a profile file holds, checked.

    Attributes:
        title: One line for people.
        data: The parsed document.
    """

    title: str
    data: dict[str, Any]

    @property
    def cores(self) -> list[dict[str, Any]]:
        """One entry per core, in order, with its cluster's fields."""
        return [c for c in self.data["cluster"] for _ in range(c["count"])]

    @property
    def cpu(self) -> str:
        """Which core qemu emulates."""
        return str(self.data.get("cpu", {}).get("model", CPU))

    @property
    def online(self) -> list[int]:
        """The cores that can be pinned to."""
        offline = self.data.get("affinity", {}).get("offline", [])
        return [i for i in range(len(self.cores)) if i not in offline]

    def write(self, folder: Path) -> None:
        """Write the phone's /sys and /system/etc, and its timeline, under an instance folder."""
        hidden = tuple(self.data.get("unreadable", ()))
        for path, text in {**self._sys(), **self._etc(), "timeline": self._timeline()}.items():
            if hidden and path.startswith(hidden):
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text + "\n" if text else "")

    def _sys(self) -> dict[str, str]:
        files = {}
        cpu = "sys/devices/system/cpu"
        files[f"{cpu}/possible"] = f"0-{len(self.cores) - 1}"
        files[f"{cpu}/online"] = ",".join(map(str, self.online))
        for i, core in enumerate(self.cores):
            freq = f"{cpu}/cpu{i}/cpufreq"
            files[f"{cpu}/cpu{i}/online"] = str(int(i in self.online))
            files[f"{freq}/cpuinfo_max_freq"] = str(core["max_khz"])
            files[f"{freq}/cpuinfo_min_freq"] = str(core["min_khz"])
            files[f"{freq}/scaling_max_freq"] = str(core["max_khz"])
            files[f"{freq}/scaling_cur_freq"] = str(core["max_khz"])
            files[f"{freq}/scaling_governor"] = core["governor"]
        for i, (name, celsius) in enumerate(self.data["thermal"]["zones"].items()):
            files[f"sys/class/thermal/thermal_zone{i}/type"] = name
            files[f"sys/class/thermal/thermal_zone{i}/temp"] = str(round(celsius * 1000))
        return files

    def _etc(self) -> dict[str, str]:
        battery, thermal = self.data["battery"], self.data["thermal"]
        memory = self.data["memory"]
        properties = {"ro.boot.qemu": "1", "ro.kernel.qemu": "1", **self.data["properties"]}
        features = self.data.get("cpu", {}).get("features", FEATURES)
        cpuinfo = "\n\n".join(
            f"processor\t: {i}\nBogoMIPS\t: 38.40\nFeatures\t: {features}\n"
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
            f"CPU part\t: {core['part']}\nCPU revision\t: 0"
            for i, core in enumerate(self.cores)
        )
        banner = {"etc/banner": self.data["banner"]} if "banner" in self.data else {}
        return {
            **banner,
            "etc/properties": "\n".join(f"{name}={value}" for name, value in properties.items()),
            "etc/cpuinfo": cpuinfo,
            "etc/meminfo": (
                f"MemTotal:       {memory['total_mb'] << 10:8} kB\n"
                f"MemAvailable:   {memory['available_mb'] << 10:8} kB"
            ),
            "etc/state/battery_level": str(battery["level"]),
            "etc/state/battery_temperature": str(round(battery["celsius"] * 10)),
            "etc/state/battery_charge": str(battery.get("charge_uah", "")),
            "etc/state/battery_voltage": str(battery.get("millivolts", "")),
            "etc/state/charging": str(battery["charging"]).lower(),
            "etc/state/skin_temperature": str(thermal["skin"]),
            "etc/state/thermal_status": str(thermal["status"]),
            "etc/state/wakefulness": self.data.get("wakefulness", "Asleep"),
        }

    def _timeline(self) -> str:
        return "\n".join(
            f"{event['clock']} {event['seconds']} {event['path']} {event['value']}"
            for event in self.data.get("timeline", [])
        )


def load(name_or_path: str) -> Profile:
    """Read a profile by its name in ``profiles`` or by path.

    A profile may name another with ``like = "NAME"`` and then gives only what differs.

    Raises:
        ValueError: There is no such profile, or it has an unknown field.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = PROFILES / f"{name_or_path}.toml"
    if not path.is_file():
        raise ValueError(f"no profile {name_or_path}; there are {', '.join(names())}")
    data = tomllib.loads(path.read_text())
    if "like" in data:
        base = load(data.pop("like")).data
        data = _merge(base, data)
    unknown = set(data) - FIELDS
    if unknown:
        raise ValueError(f"{path.name} has unknown fields: {', '.join(sorted(unknown))}")
    return Profile(data["title"], data)


def names() -> list[str]:
    """The profiles that come with the phone."""
    return sorted(p.stem for p in PROFILES.glob("*.toml"))


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merge(base[name], value) if both else value
    return merged
