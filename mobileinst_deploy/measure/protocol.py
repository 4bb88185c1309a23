"""The latency protocols: how a device is measured, this machine and phones alike.

``sd778g`` is this project's own (docs: the latency protocol's decision record). ``tnn-script``
repeats the habits of TNN's benchmark script, for whoever compares with numbers published by it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mobileinst_deploy.core.errors import ConfigError, DeviceError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure.device import THERMAL_STATUS, DeviceState
from mobileinst_deploy.measure.samples import Statistic

COOLING_LIMIT_S = 600.0
_POLL_S = 2.0
_HIGHEST_GATE = 60.0
#: Of measuring at each T: a day.
MAX_SECONDS = 86_400


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        name: On the command line.
        warmups: Untimed runs of each graph first.
        runs: Timed runs of each graph for each T, at least.
        seconds: Length of each T's schedule, at least.
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
    statistic: Statistic
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
        ConfigError: There is no such protocol, or it would never end.
    """
    if seconds is not None and not seconds <= MAX_SECONDS:
        raise ConfigError(f"{seconds} seconds never end", f"Give at most {MAX_SECONDS:,}")
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name!r}", f"Use {' or '.join(PROTOCOLS)}")
    own = PROTOCOLS[name]
    return replace(
        own,
        warmups=own.warmups if warmups is None else warmups,
        runs=own.runs if runs is None else runs,
        seconds=own.seconds if seconds is None else seconds,
    )


def parse_clip_lengths(text: str) -> tuple[int, ...]:
    """Read ``1,3,6`` as values of T, in the order given.

    Raises:
        ConfigError: It is not a list of different whole numbers from 1 to 1000.
    """
    try:
        lengths = tuple(int(part) for part in text.split(","))
    except ValueError:
        lengths = ()
    if not lengths or len(set(lengths)) != len(lengths) or not all(1 <= v <= 1000 for v in lengths):
        raise ConfigError(
            f"the values of T {text!r} are not a list of different numbers from 1 to 1000",
            "Use for example -T 1,3,6",
        )
    return lengths


def choose_core(state: DeviceState, wanted: str) -> int:
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
    read: Callable[[], DeviceState],
    max_celsius: float,
    *,
    limit_s: float = COOLING_LIMIT_S,
    progress: Progress = silent,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[DeviceState, float]:
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


def _too_hot(state: DeviceState, max_celsius: float) -> str | None:
    if state.thermal_status:
        return f"Android's thermal status is {THERMAL_STATUS[state.thermal_status]}"
    if state.celsius is not None and state.celsius > max_celsius:
        return f"it has {state.celsius:.1f} degrees, and {max_celsius:g} are allowed"
    return None
