"""The latency protocols: how a phone is measured, and what makes a measurement unbelievable.

``sd778g`` is this project's own (docs: the latency protocol's decision record). ``tnn-script``
repeats the habits of TNN's benchmark script, for whoever compares with numbers published by it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mobileinst_deploy.core.errors import ConfigError, DeviceError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import ClipLatency, Latency
from mobileinst_deploy.phone.result import RunnerResult, Sample
from mobileinst_deploy.phone.state import THERMAL_STATUS, PhoneState

#: A clock that moves by more than this part of its highest value moved the latency with it.
CLOCK_TOLERANCE = 0.05
#: Above this spread (MAD over median) something else was at work on the core.
LARGEST_SPREAD = 0.15
COOLING_LIMIT_S = 600.0
_POLL_S = 2.0
_HIGHEST_GATE = 60.0


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        name: On the command line.
        warmups: Untimed runs of each graph first.
        runs: Timed runs of each graph for each clip length, at least.
        seconds: Length of each clip length's schedule, at least.
        pinned: Whether the runner stays on one core.
        statistic: The headline: ``median`` or ``mean``.
        with_preparation: Whether filling the input tensors counts as part of a run.
        strict: Whether temperature gates the start and changed conditions make it invalid.
    """

    name: str
    warmups: int
    runs: int
    seconds: float
    pinned: bool
    statistic: str
    with_preparation: bool
    strict: bool


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("sd778g", 10, 50, 10.0, True, "median", False, True),
        Protocol("tnn-script", 5, 16, 0.0, False, "mean", True, False),
    )
}


def protocol(
    name: str,
    *,
    warmups: int | None = None,
    runs: int | None = None,
    seconds: float | None = None,
) -> Protocol:
    """A protocol by name, with what the user wants otherwise; too little of it makes it invalid.

    Raises:
        ConfigError: There is no such protocol.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name!r}", f"Use {' or '.join(PROTOCOLS)}")
    own = PROTOCOLS[name]
    return replace(
        own,
        warmups=own.warmups if warmups is None else warmups,
        runs=own.runs if runs is None else runs,
        seconds=own.seconds if seconds is None else seconds,
    )


def choose_core(state: PhoneState, wanted: str) -> int:
    """Pick the core to run on.

    Args:
        state: The phone's cores.
        wanted: ``auto`` or ``prime``: the core with the highest clock; ``little``: one with the
            lowest; or a number.

    Raises:
        ConfigError: ``wanted`` is none of these.
        DeviceError: There is no such core, it is offline, or the clocks to choose by are unknown.
    """
    check_core(wanted)
    if wanted.isdigit():
        core = state.core(int(wanted))
        if state.cores and core is None:
            raise DeviceError(
                f"the phone has no core {wanted}; its cores are 0 to {state.cores[-1].index}",
                "Use another --core, or let --core auto choose",
            )
        if core is not None and not core.online:
            raise DeviceError(
                f"core {wanted} is offline", "Use another --core, or let --core auto choose"
            )
        return int(wanted)
    known = [c for c in state.cores if c.online and c.max_khz is not None]
    if not known:
        raise DeviceError(
            "the phone does not tell the clocks of its cores, so none can be chosen by them",
            "Name a core with --core N, from 0 up",
        )
    if wanted == "little":
        return min(known, key=lambda c: (c.max_khz or 0, c.index)).index
    return max(known, key=lambda c: (c.max_khz or 0, c.index)).index


def check_core(wanted: str) -> None:
    """Check the core given by the user.

    Raises:
        ConfigError: It is no name and no number of a core.
    """
    number = wanted.isascii() and wanted.isdigit() and len(wanted) <= 3
    if not number and wanted not in ("auto", "prime", "little"):
        raise ConfigError(
            f"the core {wanted!r} is not auto, prime, little or a number",
            "Use for example --core prime",
        )


def check_gate(max_celsius: float) -> None:
    """Check the temperature given by the user.

    Raises:
        ConfigError: No phone starts below it, or it protects from nothing.
    """
    if not (math.isfinite(max_celsius) and 0 < max_celsius <= _HIGHEST_GATE):
        raise ConfigError(
            f"the temperature {max_celsius:g} is not between 0 and {_HIGHEST_GATE:g} degrees",
            "Use for example --max-temp 37",
        )


def wait_until_cool(
    read: Callable[[], PhoneState],
    max_celsius: float,
    *,
    limit_s: float = COOLING_LIMIT_S,
    progress: Progress = silent,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[PhoneState, float]:
    """Wait until the phone is cool enough to start.

    Args:
        read: Reads the phone's state.
        max_celsius: Battery and skin must both be at or below it, and the thermal status none.
        limit_s: How long to wait.
        progress: Told how long it has waited.
        sleep: Waits.
        clock: Seconds that pass.

    Returns:
        The state at the start, and how many seconds were waited.

    Raises:
        DeviceError: It stayed too hot.
    """
    began = clock()
    while True:
        state = read()
        waited = clock() - began
        reason = _too_hot(state, max_celsius)
        if reason is None:
            return state, waited
        progress("wait for the phone to cool", min(waited, limit_s), limit_s)
        if waited >= limit_s:
            raise DeviceError(
                f"the phone stayed too hot for {limit_s:.0f} s: {reason}",
                "Take it off the charger and out of its case, let it rest, or raise --max-temp",
            )
        sleep(min(_POLL_S, limit_s - waited))


def _too_hot(state: PhoneState, max_celsius: float) -> str | None:
    if state.thermal_status:
        return f"Android's thermal status is {THERMAL_STATUS[state.thermal_status]}"
    if state.celsius is not None and state.celsius > max_celsius:
        return f"it has {state.celsius:.1f} degrees, and {max_celsius:g} are allowed"
    return None


def clip_latencies(result: RunnerResult, used: Protocol) -> tuple[ClipLatency, ...]:
    """The runner's samples as latencies, one entry for each clip length.

    Raises:
        DeviceError: A schedule holds no keyframe, or no reuse frame where T asks for them.
    """

    def milliseconds(sample: Sample) -> float:
        return sample.run_ms + (sample.prepare_ms if used.with_preparation else 0.0)

    clips = []
    for schedule in result.schedules:
        keyframes = tuple(milliseconds(s) for s in schedule.samples if s.role == "frame")
        reuse = tuple(milliseconds(s) for s in schedule.samples if s.role == "mask_head")
        if not keyframes or (schedule.clip_length > 1) != bool(reuse):
            raise DeviceError(
                f"the runner's schedule for T = {schedule.clip_length} lacks runs",
                "Run it again; if it persists, assemble the bundle anew with"
                " `mobileinst device prepare --force`",
            )
        clips.append(
            ClipLatency(
                clip_length=schedule.clip_length,
                keyframe=Latency(keyframes),
                reuse=Latency(reuse) if reuse else None,
                prepare_ms=statistics.median(s.prepare_ms for s in schedule.samples),
            )
        )
    return tuple(clips)


def judge(
    used: Protocol,
    result: RunnerResult,
    before: PhoneState,
    after: PhoneState,
    *,
    core: int | None,
    emulated: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Decide whether a measurement may be believed.

    Returns:
        Reasons why not, empty when it may; and notes that a reader must know.
    """
    samples = [s for schedule in result.schedules for s in schedule.samples]
    conditions = [
        *_clock(samples, before, after, core),
        *_heat(before, after),
    ]
    if not used.strict:
        return tuple(_amount(used, result)), tuple(conditions)
    reasons = [*_core(samples, result, core), *conditions]
    if not emulated:  # an emulator's times mean nothing, and so does their spread
        reasons += _spread(clip_latencies(result, used))
    reasons += _amount(used, result)
    notes = []
    if before.celsius is None:
        notes.append("neither battery nor skin temperature could be read: the start was not gated")
    if before.charging != after.charging:
        notes.append("the charger was connected or disconnected during the measurement")
    return tuple(reasons), tuple(notes)


def _amount(used: Protocol, result: RunnerResult) -> list[str]:
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
    for schedule in result.schedules:
        roles = ["frame"] + (["mask_head"] if schedule.clip_length > 1 else [])
        for role in roles:
            runs = sum(s.role == role for s in schedule.samples)
            if runs < used.runs:
                found.append(f"T = {schedule.clip_length} holds {runs} of {used.runs} {role} runs")
        if schedule.wall_ms < 1000 * used.seconds:
            found.append(f"T = {schedule.clip_length} ended after {schedule.wall_ms / 1000:.1f} s")
    return found


def _core(samples: Sequence[Sample], result: RunnerResult, core: int | None) -> list[str]:
    if core is None:
        return []
    found = []
    if result.affinity != (core,):
        cores = ", ".join(map(str, result.affinity)) or "unknown"
        found.append(f"core {core} was asked for and the kernel allows {cores}")
    strayed = sum(s.cpu is not None and s.cpu != core for s in samples)
    if strayed:
        found.append(f"{strayed} of {len(samples)} runs ended on another core than {core}")
    return found


def _clock(
    samples: Sequence[Sample], before: PhoneState, after: PhoneState, core: int | None
) -> list[str]:
    found = []
    by_core: dict[int | None, list[int]] = {}
    for sample in samples:
        if sample.khz is not None:
            by_core.setdefault(sample.cpu if core is None else core, []).append(sample.khz)
    for index, clocks in by_core.items():
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
        if core in (None, now.index) and now.allowed_khz < was.allowed_khz:
            found.append(
                f"core {now.index} may run at {now.allowed_khz / 1000:.0f} MHz after it and"
                f" at {was.allowed_khz / 1000:.0f} MHz before"
            )
    if not by_core and (before.thermal_status is None or after.thermal_status is None):
        found.append(
            "neither the core's clock nor the thermal status could be read: throttling cannot be"
            " excluded"
        )
    return found


def _heat(before: PhoneState, after: PhoneState) -> list[str]:
    was, now = before.thermal_status, after.thermal_status
    if was is None or now is None or was == now == 0:
        return []
    names = f"{THERMAL_STATUS[was]} before and {THERMAL_STATUS[now]} after"
    return [f"Android's thermal status was {names}"]


def _spread(clips: Sequence[ClipLatency]) -> list[str]:
    return [
        f"at T = {clip.clip_length} the {name} runs spread by {latency.mad / latency.p50:.0%}"
        " (MAD over median)"
        for clip in clips
        for name, latency in (("keyframe", clip.keyframe), ("reuse", clip.reuse))
        if latency is not None and latency.mad > LARGEST_SPREAD * latency.p50
    ]
