"""sustained: let frames arrive at a pace for minutes, on this machine or on a phone.

Each T is tried in rising order until one holds, and a phone cools before each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.errors import ConfigError, DeviceError, MeasurementInvalid
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure import protocol as protocols
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.measure.host import (
    CoreWatch,
    affinity,
    host_facts,
    host_state,
    pinned_to_one_core,
)
from mobileinst_deploy.measure.record import pair_facts
from mobileinst_deploy.measure.samples import Sample, Schedule
from mobileinst_deploy.measure.sustained import Load, Reading, Sustained, SustainedRecord
from mobileinst_deploy.measure.validity import check_whole
from mobileinst_deploy.phone.plan import Plan, reuse_pattern
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import read_phone
from mobileinst_deploy.workflows.bench_targets import (
    BenchSettings,
    BenchTarget,
    HostTarget,
    PhoneTarget,
)
from mobileinst_deploy.workflows.host_clips import HostClips
from mobileinst_deploy.workflows.results import Kept, not_believed, pair_place

_SLOWEST_READING_S = 10.0
_FASTEST_READING_S = 0.5


@dataclass(frozen=True)
class SustainedResult:
    """A load that was borne.

    Attributes:
        record: What was seen.
        kept: What became of ``sustained.json``.
    """

    record: SustainedRecord
    kept: Kept

    @property
    def failure(self) -> MeasurementInvalid | None:
        """Why it must not be believed, as an error; None when it may."""
        return not_believed(
            f"the load on {self.record.device.name}",
            self.record.invalid,
            f"Try again when that no longer holds; every sample is in {self.kept.path}",
        )


def sustain(
    pair: ExportBundle,
    target: BenchTarget,
    settings: BenchSettings,
    load: Load,
    *,
    report: Path | None = None,
    progress: Progress = silent,
) -> SustainedResult:
    """Bear a load at each T, the smallest first, until one holds; keep ``sustained.json``.

    Args:
        pair: What computes the frames.
        target: From :func:`~mobileinst_deploy.workflows.bench_targets.open_targets`, one alone.
        settings: Every T, core, the temperature to begin below, live kernels.
        load: What arrives.
        report: A file or folder in place of ``results/<device>-<runtime>-<form>/sustained.json``.
        progress: Told of each T.

    Raises:
        ConfigError: There is no T to try.
        DeviceError: The device failed, or stayed too hot.
        OutputError: ``report`` cannot be written.
    """
    place = pair_place("sustained", pair, target.name, target.runtime, report)
    place.check()
    if isinstance(target, HostTarget):
        bear: _Bear = _Host(pair, target, settings, load)
    elif isinstance(target, PhoneTarget):
        bear = _Phone(pair, target, settings, load)
    else:
        raise ConfigError(f"{target.name} bears no load", "Use --device cpu or adb")
    lengths = sorted(settings.clip_lengths)
    if not lengths:
        raise ConfigError("there is no T to try", "Give one with -T")
    clips: list[Sustained] = []
    for length in lengths:
        clips.append(bear.at(length, progress))
        record = SustainedRecord(
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            pair=pair_facts(pair),
            device=bear.facts,
            runtime=target.runtime,
            core=bear.core,
            load=load,
            clips=tuple(clips),
            caveat=pair.caveat,
        )
        # After each: what was borne for an hour outlives a phone that fails at the next T.
        kept = place.keep(record.to_dict())
        if clips[-1].holds and not bear.facts.emulated:
            break
    return SustainedResult(record, kept)


class _Bear:
    """What bears the load; ``at`` one T after the other."""

    facts: DeviceFacts
    core: int | None = None

    def at(self, length: int, progress: Progress) -> Sustained:
        raise NotImplementedError


class Camera:
    """Frames that arrive at a pace; only the newest waits.

    Args:
        fps: Each second.
        now: Seconds that pass.
        sleep: Waits.
    """

    def __init__(
        self,
        fps: float,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._fps, self._now, self._sleep = fps, now, sleep
        self._taken = -1
        self.origin = now()

    def wait(self) -> None:
        """Return when a frame is there that was not taken yet, and take the newest."""
        arrived = int((self._now() - self.origin) * self._fps)
        self._taken = max(arrived, self._taken + 1)
        while (left := self.origin + self._taken / self._fps - self._now()) > 0:
            self._sleep(left)


class _Watch(threading.Thread):
    """Reads a device's state now and then while it works."""

    def __init__(self, read: Callable[[], DeviceState], load: Load) -> None:
        super().__init__(daemon=True)
        self._read = read
        self._every = min(_SLOWEST_READING_S, max(_FASTEST_READING_S, load.seconds / 20))
        self._ended = threading.Event()
        self._begun = time.monotonic()
        self._readings: list[Reading] = []

    def run(self) -> None:
        while not self._ended.wait(self._every):
            with suppress(DeviceError):  # the run itself will tell that the phone went away
                at = time.monotonic() - self._begun
                self._readings.append(Reading(round(at, 2), self._read()))

    def end(self) -> tuple[Reading, ...]:
        self._ended.set()
        self.join(timeout=60)
        return tuple(self._readings)


class _Host(_Bear):
    def __init__(
        self, pair: ExportBundle, target: HostTarget, settings: BenchSettings, load: Load
    ) -> None:
        self._pair, self._runner, self._settings, self._load = pair, target.runner, settings, load
        self._runner.load_both()
        self.facts = host_facts()

    def at(self, length: int, progress: Progress) -> Sustained:
        """One T on this machine."""
        load = self._load
        with pinned_to_one_core() as pinned:
            self.core = pinned
            allowed, watch = affinity(), CoreWatch(pinned)
            clips = HostClips(self._runner, self._pair, self._settings.live(self._pair))
            clips.warm_up(self._settings.protocol.warmups, watch)
            before, readings = host_state(), _Watch(host_state, load)
            readings.start()
            camera = Camera(load.fps)
            paced = HostClips(
                self._runner, self._pair, self._settings.live(self._pair), camera.wait
            )
            samples: list[Sample] = []
            clip = 0
            try:
                while (past := time.perf_counter() - camera.origin) < load.seconds or not clip:
                    progress(f"T = {length}", past, load.seconds)
                    samples += paced.run(length, clip, camera.origin, watch)
                    clip += 1
            finally:
                seen = readings.end()
            wall_ms = 1e3 * (time.perf_counter() - camera.origin)
        schedule = Schedule(length, wall_ms, tuple(samples))
        return Sustained(schedule, seen, load, before, host_state(), allowed)


class _Phone(_Bear):
    def __init__(
        self, pair: ExportBundle, target: PhoneTarget, settings: BenchSettings, load: Load
    ) -> None:
        self._pair, self._target, self._settings, self._load = pair, target, settings, load

    def at(self, length: int, progress: Progress) -> Sustained:
        """One T on a phone, once it is cool."""
        target, settings, load = self._target, self._settings, self._load
        golden, live = load_golden(self._pair), settings.live(self._pair)
        own = live < self._pair.config.num_queries
        kernels = np.ascontiguousarray(golden.kernels(0)[:, :live]) if own else None
        images = [golden.image(i) for i in range(min(2, len(golden.images)))]
        graphs = {role: graph.files for role, graph in target.converted.graphs.items()}
        device = AdbDevice(target.serial)
        with Session(device, target.device_bundle, graphs, progress) as session:
            self.facts = session.facts
            self.core = protocols.choose_core(session.state, settings.core)
            before, waited = protocols.wait_until_cool(
                lambda: read_phone(device)[1],
                settings.max_celsius,
                limit_s=settings.cooling_limit_s,
                progress=progress,
            )
            plan = Plan(
                "bench",
                reuse_pattern(target.converted.specs, images, kernels),
                core=self.core,
                warmups=settings.protocol.warmups,
                runs=1,
                seconds=load.seconds,
                clip_lengths=(length,),
                limit_seconds=int(4 * load.seconds) + 600,
                pace=load.fps,
            )
            readings = _Watch(lambda: read_phone(AdbDevice(target.serial))[1], load)
            readings.start()
            try:
                result = session.start(plan)
            finally:
                seen = readings.end()
            _, after = read_phone(device)
        check_whole(result.schedules)
        (schedule,) = result.schedules
        return Sustained(schedule, seen, load, before, after, result.affinity, round(waited, 1))
