"""A load that goes on: frames arrive at a pace, and what matters is who misses them, and when.

``bench`` asks how long a frame takes on a cool core, and a phone that throttles spoils it. Here
throttling is the finding. The camera holds one frame: whoever is ready takes the newest, and misses
those that it was too slow for. A frame's deadline is the arrival of the next one.

The record is the form of ``sustained.json``, schema 1. Of an emulated device it holds what the
device said of its heat and clock, and its samples under ``emulated_schedules``; no deadline of an
emulator means anything, and so none is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.version import __version__
from mobileinst_deploy.measure.device import THERMAL_STATUS, DeviceFacts, DeviceState
from mobileinst_deploy.measure.record import PairFacts
from mobileinst_deploy.measure.samples import Schedule, to_columns
from mobileinst_deploy.measure.validity import CLOCK_TOLERANCE

SCHEMA = 1
#: In less, nothing is sustained: a phone's case takes minutes to warm.
LEAST_SECONDS = 60.0
MOST_SECONDS = 3600.0
#: A T holds while at most this share of the frames misses its deadline, also in the last half.
MOST_MISSED = 0.01
#: The runner keeps so many samples.
MOST_FRAMES = 100_000
#: So many readings make a curve.
LEAST_READINGS = 3
_PARTS = 10


@dataclass(frozen=True)
class Load:
    """What a device shall bear.

    Attributes:
        seconds: How long, for each T.
        fps: Frames that arrive each second.

    Raises:
        ConfigError: It never begins, never ends, or has more frames than can be kept.
    """

    seconds: float
    fps: float

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MOST_SECONDS:
            raise ConfigError(
                f"{self.seconds:g} seconds cannot be sustained",
                f"Give more than 0 and at most {MOST_SECONDS:g}",
            )
        if not 0.01 <= self.fps <= 1000:
            raise ConfigError(
                f"{self.fps:g} frames a second come from no camera", "Give for example --fps 30"
            )
        if self.seconds * self.fps > MOST_FRAMES:
            raise ConfigError(
                f"{self.seconds:g} s at {self.fps:g} frames a second are more than {MOST_FRAMES:,}",
                "Make it shorter or slower",
            )


@dataclass(frozen=True)
class Reading:
    """What a device said of itself while it ran.

    Attributes:
        at_s: Since the load began, s.
        state: Its heat, clocks and charge.
    """

    at_s: float
    state: DeviceState


@dataclass(frozen=True)
class Part:
    """A stretch of the load.

    Attributes:
        until_s: Its end, s.
        due: Frames that arrived.
        missed: Of these, how many were not taken, or done after the next arrived.
        p50_ms: Median latency of those taken, from arrival to the result; None when none was.
        p90_ms: 90th percentile.
        khz: Median clock of the core, or None.
        celsius: The last temperature read, or None.
    """

    until_s: float
    due: int
    missed: int
    p50_ms: float | None
    p90_ms: float | None
    khz: float | None
    celsius: float | None


@dataclass(frozen=True)
class Sustained:
    """The load at one T.

    Attributes:
        schedule: Every run.
        readings: In order.
        load: What arrived.
        before: The device just before.
        after: Just after.
        affinity: The cores that the kernel allowed.
        waited_s: How long it had to cool first, s.
    """

    schedule: Schedule
    readings: tuple[Reading, ...]
    load: Load
    before: DeviceState
    after: DeviceState
    affinity: tuple[int, ...] = ()
    waited_s: float = 0.0

    @property
    def parts(self) -> tuple[Part, ...]:
        """Ten stretches of equal length."""
        fps = self.load.fps
        samples = self.schedule.samples
        start = np.array([s.start_ms for s in samples])
        took = np.array([s.prepare_ms + s.run_ms for s in samples])
        khz = np.array([np.nan if s.khz is None else s.khz for s in samples])
        frame = np.floor(start * fps / 1000 + 1e-6)
        latency = start + took - 1000 * frame / fps
        in_time = latency <= 1000 / fps
        due = max(int(self.schedule.wall_ms * fps / 1000), len(samples))
        edges = np.linspace(0, due, _PARTS + 1).round().astype(int)
        parts = []
        for low, high in pairwise(edges):
            here = (frame >= low) & (frame < high)
            until = high / fps
            warmth = [r.state.celsius for r in self.readings if r.at_s <= until]
            clocks = khz[here & ~np.isnan(khz)]
            parts.append(
                Part(
                    until_s=until,
                    due=int(high - low),
                    missed=int(high - low - (here & in_time).sum()),
                    p50_ms=float(np.median(latency[here])) if here.any() else None,
                    p90_ms=float(np.percentile(latency[here], 90)) if here.any() else None,
                    khz=float(np.median(clocks)) if clocks.size else None,
                    celsius=warmth[-1] if warmth else self.before.celsius,
                )
            )
        return tuple(parts)

    @property
    def due(self) -> int:
        """Frames that arrived."""
        return sum(part.due for part in self.parts)

    @property
    def missed(self) -> int:
        """Frames that missed their deadline."""
        return sum(part.missed for part in self.parts)

    @property
    def holds(self) -> bool:
        """Whether at most one in a hundred missed, over all and in the second half."""
        parts = self.parts
        stretches = (parts, parts[_PARTS // 2 :])
        return all(
            sum(p.missed for p in some) <= MOST_MISSED * max(sum(p.due for p in some), 1)
            for some in stretches
        )

    @property
    def throttled(self) -> str | None:
        """When and how the device slowed itself, in words; None when it did not, or does not say.

        Throttling is a finding here, and no reason for disbelief.
        """
        samples = self.schedule.samples
        core = samples[0].cpu
        clocks = [(s.start_ms / 1000, s.khz) for s in samples if s.khz is not None]
        clocks += [
            (r.at_s, found.now_khz)
            for r in self.readings
            if core is not None
            and (found := r.state.core(core)) is not None
            and found.now_khz is not None
        ]
        if clocks:
            highest = max(khz for _, khz in clocks)
            low = [(at, khz) for at, khz in clocks if khz < (1 - CLOCK_TOLERANCE) * highest]
            if low:
                at, khz = min(low)
                return (
                    f"after {at:.0f} s the clock fell from {highest / 1000:.0f} to"
                    f" {khz / 1000:.0f} MHz"
                )
        for reading in self.readings:
            if reading.state.thermal_status:
                name = THERMAL_STATUS[reading.state.thermal_status]
                return f"after {reading.at_s:.0f} s Android's thermal status was {name}"
        return None

    @property
    def millijoules(self) -> float | None:
        """Energy of a frame that was computed, the whole phone's; None where no battery tells.

        From the charge that left the battery, at the mean of its voltages.
        """
        was, now = self.before, self.after
        charged = (was.battery_uah, now.battery_uah, was.battery_mv, now.battery_mv)
        if was.charging is not False or now.charging is not False or None in charged:
            return None
        used = (was.battery_uah or 0) - (now.battery_uah or 0)
        volts = ((was.battery_mv or 0) + (now.battery_mv or 0)) / 2000
        return 3.6 * used * volts / len(self.schedule.samples) if used > 0 else None


@dataclass(frozen=True)
class SustainedRecord:
    """A load that was borne, at one T or several, and whether to believe it.

    Attributes:
        measured_at: When it ended, UTC, ISO 8601.
        pair: What was measured.
        device: Where.
        runtime: What computed the graphs.
        core: The one that it ran on, or None.
        load: What arrived.
        clips: One for each T that was tried, rising.
        caveat: Why this is not the paper's protocol, or None.
    """

    measured_at: str
    pair: PairFacts
    device: DeviceFacts
    runtime: str
    core: int | None
    load: Load
    clips: tuple[Sustained, ...]
    caveat: str | None = None

    @property
    def holds(self) -> int | None:
        """The smallest T that holds; None when none does, or an emulator ran it."""
        if self.device.emulated:
            return None
        return next((c.schedule.clip_length for c in self.clips if c.holds), None)

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why it must not be believed; empty when it may."""
        found = []
        if self.load.seconds < LEAST_SECONDS:
            found.append(f"{self.load.seconds:g} s are too short: {LEAST_SECONDS:g} are the least")
        for clip in self.clips:
            found += [f"at T = {clip.schedule.clip_length} {why}" for why in self._broken(clip)]
        return tuple(found)

    def _broken(self, clip: Sustained) -> list[str]:
        phone = self.device.kind == "adb"
        found = []
        if clip.schedule.wall_ms < 1000 * self.load.seconds:
            found.append(f"it ended after {clip.schedule.wall_ms / 1000:.1f} s")
        if self.core is not None and clip.affinity not in ((self.core,), ()):
            found.append(f"core {self.core} was asked for and the kernel allows other ones")
        if clip.before.thermal_status:
            found.append("it began hot")
        if clip.before.charging != clip.after.charging:
            found.append("the charger was connected or disconnected")
        if clip.before.awake != clip.after.awake:
            found.append("the screen was switched on or off")
        warmth = [r for r in clip.readings if r.state.celsius is not None]
        if phone and len(warmth) < LEAST_READINGS:
            found.append("the temperature could not be followed")
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know, throttling first."""
        found = [
            f"T = {clip.schedule.clip_length}: {clip.throttled}"
            for clip in self.clips
            if clip.throttled is not None
        ]
        if self.device.kind == "host":
            found.append("this host and no phone: a case that warms is another thing")
        if self.device.emulated:
            found.append("emulated: no deadline means anything, and none is told")
        return (*found, *filter(None, (self.caveat,)))

    def to_dict(self) -> dict[str, Any]:
        """The form of ``sustained.json``."""
        clips = []
        for clip in self.clips:
            schedule = clip.schedule
            told = {} if self.device.emulated else _told(clip)
            clips.append(
                {
                    "clip_length": schedule.clip_length,
                    **told,
                    "throttled": clip.throttled,
                    "waited_to_cool_s": round(clip.waited_s, 1),
                    "readings": [{"at_s": r.at_s, **r.state.to_dict()} for r in clip.readings],
                    "state_before": clip.before.to_dict(),
                    "state_after": clip.after.to_dict(),
                }
            )
        schedules = [
            {
                "clip_length": clip.schedule.clip_length,
                "wall_ms": clip.schedule.wall_ms,
                "samples": asdict(to_columns(clip.schedule.samples)),
            }
            for clip in self.clips
        ]
        return {
            "schema": SCHEMA,
            "mobileinst": __version__,
            "measured_at": self.measured_at,
            "pair": asdict(self.pair),
            "device": self.device.to_dict(),
            "emulated": self.device.emulated,
            "runtime": self.runtime,
            "core": self.core,
            "load": asdict(self.load),
            "smallest_clip_length_that_holds": self.holds,
            "valid": not self.invalid,
            "invalid": list(self.invalid),
            "notes": list(self.notes),
            "clips": clips,
            "emulated_schedules" if self.device.emulated else "schedules": schedules,
        }


def _told(clip: Sustained) -> dict[str, Any]:
    """What is said of deadlines and of energy, where a real core ran."""
    return {
        "due": clip.due,
        "missed": clip.missed,
        "holds": clip.holds,
        "millijoules_per_frame": clip.millijoules,
        "parts": [asdict(part) for part in clip.parts],
    }


def shown_parts(clips: Sequence[Sustained]) -> list[tuple[str, ...]]:
    """Rows for people: T and the end of each stretch, missed, p50, p90, clock, temperature."""
    rows = []
    for clip in clips:
        for part in clip.parts:
            values = (part.p50_ms, part.p90_ms, part.khz and part.khz / 1000, part.celsius)
            cells = ("-" if value is None else f"{value:.1f}" for value in values)
            rows.append(
                (
                    str(clip.schedule.clip_length),
                    f"{part.until_s:.0f} s",
                    f"{part.missed} of {part.due}",
                    *cells,
                )
            )
    return rows
