"""Several pairs in turn on a phone: its runner measures one pair a start, so each starts often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure.samples import Sample, Schedule, clip_times
from mobileinst_deploy.measure.validity import Measured
from mobileinst_deploy.workflows.bench_targets import BenchSettings, BenchTarget

#: So often every pair has its turn. An interval of confidence needs eight.
ROUNDS = 10


def measure_in_rounds(
    pairs: Sequence[tuple[BenchTarget, ExportBundle]],
    settings: BenchSettings,
    progress: Progress = silent,
    keep: Callable[[int, Measured], object] | None = None,
) -> list[list[Measured]]:
    """Measure every pair a tenth of the protocol's amount at a time, the order turned each round.

    Args:
        pairs: Each with its target on the same phone.
        settings: The amounts of all rounds together.
        progress: Told of each start.
        keep: Given, after each start, which pair it was of and all that was measured of that so
            far, as one.

    Returns:
        For each pair what each round gave.

    Raises:
        DeviceError: The phone is missing, stayed too hot, or failed.
    """
    used = settings.protocol
    part = replace(
        settings,
        protocol=replace(used, runs=-(-used.runs // ROUNDS), seconds=used.seconds / ROUNDS),
    )
    rounds: list[list[Measured]] = [[] for _ in pairs]
    cancel, forward = threading.Event(), range(len(pairs))
    for turn in range(ROUNDS):
        for which in forward if turn % 2 else reversed(forward):
            target, pair = pairs[which]
            progress(f"round {turn + 1} of {ROUNDS}: {pair.folder.name}", turn, ROUNDS)
            rounds[which].append(target.measure(pair, part, cancel, silent))
            if keep is not None:
                keep(which, joined(rounds[which]))
    return rounds


def middle_clip(measured: Measured, clip_length: int) -> float:
    """Median time of a round's clips at one T, ms."""
    schedule = next(s for s in measured.schedules if s.clip_length == clip_length)
    return float(np.median(clip_times(schedule)))


def joined(parts: Sequence[Measured]) -> Measured:
    """Measurements of one pair on one device, one after the other, as one."""
    schedules = []
    for same in zip(*(part.schedules for part in parts), strict=True):
        samples: list[Sample] = []
        clips, wall = 0, 0.0
        for schedule in same:
            samples += [
                replace(s, clip=s.clip + clips, start_ms=s.start_ms + wall)
                for s in schedule.samples
            ]
            clips = 1 + max(s.clip for s in samples)
            wall += schedule.wall_ms
        schedules.append(Schedule(same[0].clip_length, wall, tuple(samples)))
    peaks = [part.peak_memory_kib for part in parts if part.peak_memory_kib is not None]
    return replace(
        parts[0],
        after=parts[-1].after,
        schedules=tuple(schedules),
        waited_s=sum(part.waited_s for part in parts),
        peak_memory_kib=max(peaks, default=None),
    )
