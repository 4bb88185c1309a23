"""Clips run on this machine and timed: of one pair, or of several in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.contract import ROLES, Role, is_carried
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure.host import (
    CoreWatch,
    affinity,
    host_facts,
    host_state,
    pinned_to_one_core,
)
from mobileinst_deploy.measure.protocol import Protocol
from mobileinst_deploy.measure.samples import Sample, Schedule
from mobileinst_deploy.measure.validity import Measured
from mobileinst_deploy.phone.shell import CancelledError
from mobileinst_deploy.runtimes.host import HostRunner


@dataclass(frozen=True)
class HostEntry:
    """One of those that are measured in turn.

    Attributes:
        runner: Computes the pair's graphs.
        pair: The pair, for its golden pictures.
        live: Kernels handed to its reuse frames.
    """

    runner: HostRunner
    pair: ExportBundle
    live: int


def measure_in_turn(
    entries: Sequence[HostEntry],
    used: Protocol,
    clip_lengths: Sequence[int],
    *,
    cancel: threading.Event | None = None,
    progress: Progress = silent,
) -> list[Measured]:
    """Run clips of every entry in turn on one core, so that all meet the same heat and neighbours.

    The order is turned round after each turn: of two, each goes first as often, and a drift that
    lasts weighs on all alike. Each entry gets the protocol's amount of runs and time of its own.

    Args:
        entries: At least one.
        used: How.
        clip_lengths: Every T.
        cancel: Set by somebody who wants it to stop.
        progress: Told of each turn.

    Returns:
        What each gave, in their order. The samples of clip i were all taken in turn i.

    Raises:
        BundleError: A graph cannot be loaded.
        DeviceError: A runtime failed.
        CancelledError: Somebody asked to stop.
    """
    load_ms = [_loaded(each.runner) for each in entries]
    clips = [HostClips(each.runner, each.pair, each.live) for each in entries]
    schedules: list[list[Schedule]] = [[] for _ in entries]
    forward, names = range(len(entries)), "" if len(entries) == 1 else ", in turn"
    with pinned_to_one_core() as pinned:
        core = pinned if used.pinned else None
        allowed, before = affinity(), host_state()
        watch = CoreWatch(core)
        for each in clips:
            each.warm_up(used.warmups, watch)
        for length in clip_lengths:
            samples: list[list[Sample]] = [[] for _ in entries]
            begun, turn = time.perf_counter(), 0
            while turn < used.runs or time.perf_counter() - begun < len(entries) * used.seconds:
                for which in forward if turn % 2 else reversed(forward):
                    if cancel is not None and cancel.is_set():
                        raise CancelledError
                    samples[which] += clips[which].run(length, turn, begun, watch)
                turn += 1
                progress(f"T = {length}{names}", min(turn, used.runs), used.runs)
            wall_ms = 1e3 * (time.perf_counter() - begun)
            for mine, own in zip(schedules, samples, strict=True):
                mine.append(Schedule(length, wall_ms, tuple(own)))
        after = host_state()
    return [
        Measured(
            facts=host_facts(),
            before=before,
            after=after,
            runtime=entry.runner.runtime,
            core=core,
            affinity=allowed,
            schedules=tuple(mine),
            load_ms=loads,
        )
        for entry, mine, loads in zip(entries, schedules, load_ms, strict=True)
    ]


def _loaded(runner: HostRunner) -> dict[Role, float]:
    """Load both graphs; how long each took, ms."""
    taken: dict[Role, float] = {}
    for role in ROLES:
        begun = time.perf_counter()
        runner.load(role)
        taken[role] = 1e3 * (time.perf_counter() - begun)
    return taken


class HostClips:
    """Runs clips of one pair on this machine and times each run.

    Args:
        runner: Computes the graphs, loaded.
        pair: For its golden pictures.
        live: Kernels handed to reuse frames.
        wait: Called before each timed run: returns when its frame is there.
    """

    def __init__(
        self,
        runner: HostRunner,
        pair: ExportBundle,
        live: int,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        golden = load_golden(pair)
        self._runner = runner
        self._images = [golden.image(i) for i in range(len(golden.images))]
        self._live = live
        self._next = 0
        self._wait = wait

    def warm_up(self, runs: int, watch: CoreWatch) -> None:
        """Run both graphs untimed."""
        for clip in range(runs):
            self.run(2, clip, 0.0, watch)

    def run(self, length: int, clip: int, origin: float, watch: CoreWatch) -> list[Sample]:
        """One keyframe and its reuse frames.

        Args:
            length: T.
            clip: Its index.
            origin: Of the schedule, ``time.perf_counter()``.
            watch: Tells core and clock.
        """
        outputs, sample = self._timed("frame", {}, clip, origin, watch)
        samples = [sample]
        carried = {name: array for name, array in outputs.items() if is_carried(name)}
        carried["kernels"] = carried["kernels"][:, : self._live]
        for _ in range(length - 1):
            samples.append(self._timed("mask_head", carried, clip, origin, watch)[1])
        return samples

    def _timed(
        self,
        role: Role,
        inputs: dict[str, np.ndarray],
        clip: int,
        origin: float,
        watch: CoreWatch,
    ) -> tuple[dict[str, np.ndarray], Sample]:
        image = self._images[self._next % len(self._images)]
        self._next += 1
        self._wait()
        start = time.perf_counter()
        # A buffer of its own for every picture, as a camera gives.
        own = {name: np.array(array) for name, array in {"image": image, **inputs}.items()}
        ready = self._runner.ready(role, own)
        prepared = time.perf_counter()
        ready.compute()
        end = time.perf_counter()
        cpu, khz = watch.read()
        sample = Sample(
            role,
            clip,
            1e3 * (start - origin),
            1e3 * (prepared - start),
            1e3 * (end - prepared),
            cpu,
            khz,
        )
        return ready.outputs(), sample
