"""What makes a measurement unbelievable: one set of rules for this machine and for phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.measure.device import THERMAL_STATUS, DeviceFacts, DeviceState
from mobileinst_deploy.measure.protocol import PROTOCOLS, Protocol
from mobileinst_deploy.measure.samples import Sample, Schedule, clip_latency

#: A clock that moves by more than this part of its highest value moved the latency with it.
CLOCK_TOLERANCE = 0.05
#: Above this spread (MAD over median) something else was at work on the core.
LARGEST_SPREAD = 0.15


@dataclass(frozen=True)
class Measured:
    """What a device gave: the samples, and how it was before and after.

    Attributes:
        facts: What the device is.
        before: Its state at the start.
        after: Its state at the end.
        runtime: Name and version of what computed the graphs.
        core: The core that was asked for, or None where the runner was left alone.
        affinity: The cores that the kernel allowed when asked after pinning.
        schedules: One for each T.
        waited_s: How long it had to cool first, s.
        load_ms: Time to load each graph, ms.
        peak_memory_kib: Highest resident memory of the process, KiB, or None if unknown.
        runner_sha256: Of the device bundle that ran there; None on this machine.
    """

    facts: DeviceFacts
    before: DeviceState
    after: DeviceState
    runtime: str
    core: int | None
    affinity: tuple[int, ...]
    schedules: tuple[Schedule, ...]
    waited_s: float = 0.0
    load_ms: Mapping[Role, float] = field(default_factory=dict)
    peak_memory_kib: int | None = None
    runner_sha256: str | None = None

    @property
    def samples(self) -> list[Sample]:
        """Of all schedules."""
        return [sample for schedule in self.schedules for sample in schedule.samples]


@dataclass(frozen=True)
class Verdict:
    """Whether a measurement may be believed.

    Attributes:
        invalid: Reasons why not, empty when it may.
        notes: What a reader must know.
    """

    invalid: tuple[str, ...]
    notes: tuple[str, ...]


def check_whole(schedules: Sequence[Schedule]) -> None:
    """Refuse schedules that lack the runs of a graph.

    Raises:
        DeviceError: One holds no keyframe, or no reuse frame where T asks for them.
    """
    for schedule in schedules:
        if not schedule.of("frame") or (schedule.clip_length > 1) != bool(schedule.of("mask_head")):
            raise DeviceError(
                f"the runner's schedule for T = {schedule.clip_length} lacks runs",
                "Run it again; if it persists, assemble the bundle anew with"
                " `mobileinst device prepare --force`",
            )


def judge(used: Protocol, measured: Measured) -> Verdict:
    """Decide whether a measurement may be believed."""
    host = measured.facts.kind == "host"
    blind = _blind(measured)
    conditions = [*_clock(measured), *_heat(measured)]
    if not used.strict:
        return Verdict(tuple(_amount(used, measured)), (*conditions, *blind))
    reasons = [*_core(measured), *conditions, *([] if host else blind)]
    if not measured.facts.emulated:  # an emulator's times mean nothing, and so does their spread
        reasons += _spread(used, measured)
    reasons += _amount(used, measured)
    notes = list(blind) if host else []
    before, after = measured.before, measured.after
    if not host and before.celsius is None:
        notes.append("neither battery nor skin temperature could be read: the start was not gated")
    if before.charging != after.charging:
        notes.append("the charger was connected or disconnected during the measurement")
    return Verdict(tuple(reasons), tuple(notes))


def _amount(used: Protocol, measured: Measured) -> list[str]:
    """Fewer runs than the protocol asks for, by wish or by a runner that stopped early."""
    own = PROTOCOLS[used.name]
    found = [
        f"{asked:g} {unit} where {used.name} asks for {least:g}"
        for asked, least, unit in (
            (used.warmups, own.warmups, "warm-ups"),
            (used.runs, own.runs, "runs"),
            (used.seconds, own.seconds, "seconds"),
        )
        if asked < least
    ]
    for schedule in measured.schedules:
        for role in ("frame", "mask_head")[: 1 + (schedule.clip_length > 1)]:
            runs = sum(sample.role == role for sample in schedule.samples)
            if runs < used.runs:
                found.append(f"T = {schedule.clip_length} holds {runs} of {used.runs} {role} runs")
        if schedule.wall_ms < 1000 * used.seconds:
            found.append(f"T = {schedule.clip_length} ended after {schedule.wall_ms / 1000:.1f} s")
    return found


def _core(measured: Measured) -> list[str]:
    core = measured.core
    if core is None:
        return []
    found = []
    if measured.affinity != (core,):
        cores = ", ".join(map(str, measured.affinity)) or "unknown"
        found.append(f"core {core} was asked for and the kernel allows {cores}")
    samples = measured.samples
    strayed = sum(s.cpu is not None and s.cpu != core for s in samples)
    if strayed:
        found.append(f"{strayed} of {len(samples)} runs ended on another core than {core}")
    return found


def _clocks(measured: Measured) -> dict[int | None, list[int]]:
    """The clocks seen after each run, by core."""
    by_core: dict[int | None, list[int]] = {}
    for sample in measured.samples:
        if sample.khz is not None:
            core = sample.cpu if measured.core is None else measured.core
            by_core.setdefault(core, []).append(sample.khz)
    return by_core


def _clock(measured: Measured) -> list[str]:
    found = []
    before, after = measured.before, measured.after
    for index, clocks in _clocks(measured).items():
        if min(clocks) < (1 - CLOCK_TOLERANCE) * max(clocks):
            found.append(
                f"the clock of core {index} moved between {min(clocks) / 1000:.0f} and"
                f" {max(clocks) / 1000:.0f} MHz"
            )
        known = before.core(index) if index is not None else None
        highest = known.max_khz if known else None
        if highest is not None and max(clocks) < (1 - CLOCK_TOLERANCE) * highest:
            found.append(
                f"core {index} never ran faster than {max(clocks) / 1000:.0f} of its"
                f" {highest / 1000:.0f} MHz"
            )
    for now in after.cores:
        was = before.core(now.index)
        if was is None or was.allowed_khz is None or now.allowed_khz is None:
            continue
        if measured.core in (None, now.index) and now.allowed_khz < was.allowed_khz:
            found.append(
                f"core {now.index} may run at {now.allowed_khz / 1000:.0f} MHz after it and"
                f" at {was.allowed_khz / 1000:.0f} MHz before"
            )
    return found


def _blind(measured: Measured) -> tuple[str, ...]:
    """Nobody can say whether the device throttled."""
    before, after = measured.before, measured.after
    known = before.thermal_status is not None and after.thermal_status is not None
    if known or _clocks(measured):
        return ()
    return (
        "neither the core's clock nor the thermal status could be read: throttling cannot be"
        " excluded",
    )


def _heat(measured: Measured) -> list[str]:
    was, now = measured.before.thermal_status, measured.after.thermal_status
    if was is None or now is None or was == now == 0:
        return []
    names = f"{THERMAL_STATUS[was]} before and {THERMAL_STATUS[now]} after"
    return [f"Android's thermal status was {names}"]


def _spread(used: Protocol, measured: Measured) -> list[str]:
    clips = [clip_latency(s, used.statistic, used.with_preparation) for s in measured.schedules]
    found = []
    for name in ("keyframe", "reuse"):
        latencies = {c.clip_length: c.keyframe if name == "keyframe" else c.reuse for c in clips}
        wide = [
            f"{latency.mad / latency.p50:.0%} at T = {t}"
            for t, latency in latencies.items()
            if latency is not None and latency.mad > LARGEST_SPREAD * latency.p50
        ]
        if wide:
            found.append(
                f"the {name} runs spread by {', '.join(wide)} (MAD over median, at most"
                f" {LARGEST_SPREAD:.0%}): something else was at work"
            )
    return found
