"""Timed runs and what is said of them: every sample kept, every statistic computed from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.documents import Whole

Statistic = Literal["median", "mean"]
#: A time may be long, but it passes: a year.
Milliseconds = Annotated[float, Meta(ge=0, le=365 * 86400e3)]


@dataclass(frozen=True)
class Sample:
    """One timed run.

    Attributes:
        role: Which graph.
        clip: Index of the clip within its schedule.
        start_ms: When the run began, from the schedule's start.
        prepare_ms: Filling the input tensors, apart from the run.
        run_ms: Inference alone: the runtime's own call, inputs filled before and outputs taken
            after it.
        cpu: The core it ended on, or None where the kernel does not say.
        khz: That core's clock just after the run, or None where it cannot be read.
    """

    role: Role
    clip: Whole
    start_ms: Milliseconds
    prepare_ms: Milliseconds
    run_ms: Milliseconds
    cpu: Whole | None = None
    khz: Whole | None = None


@dataclass(frozen=True)
class Schedule:
    """One T's runs: keyframe, T-1 reuse frames, keyframe, ...

    Attributes:
        clip_length: T.
        wall_ms: From the first run's start to the last run's end.
        samples: In the order they ran.
    """

    clip_length: Whole
    wall_ms: Milliseconds
    samples: tuple[Sample, ...] = ()

    def of(self, role: Role) -> tuple[Sample, ...]:
        """The runs of one graph."""
        return tuple(sample for sample in self.samples if sample.role == role)


@dataclass(frozen=True)
class Latency:
    """What the runs of one graph amount to.

    Attributes:
        samples_ms: One entry per run in the order they ran, ms.
        statistic: Which one is the headline.
    """

    samples_ms: tuple[float, ...]
    statistic: Statistic = "median"

    @property
    def headline(self) -> float:
        """The statistic that the protocol reports, ms."""
        return self.p50 if self.statistic == "median" else self.mean

    @property
    def min(self) -> float:
        """Fastest run, ms."""
        return min(self.samples_ms)

    @cached_property
    def p50(self) -> float:
        """Median, ms."""
        return float(np.median(self.samples_ms))

    @cached_property
    def p90(self) -> float:
        """90th percentile by linear interpolation, ms."""
        return float(np.percentile(self.samples_ms, 90))

    @cached_property
    def mean(self) -> float:
        """Arithmetic mean, ms."""
        return float(np.mean(self.samples_ms))

    @cached_property
    def mad(self) -> float:
        """Median absolute deviation from the median, ms: the spread."""
        return float(np.median(np.abs(np.asarray(self.samples_ms) - self.p50)))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "runs": len(self.samples_ms),
            "min_ms": self.min,
            "p50_ms": self.p50,
            "p90_ms": self.p90,
            "mad_ms": self.mad,
            "mean_ms": self.mean,
        }


@dataclass(frozen=True)
class ClipLatency:
    """What one T's schedule amounts to.

    Attributes:
        clip_length: T.
        keyframe: The frame graph's runs within this schedule.
        reuse: The mask-head graph's runs within it; None at T = 1.
        prepare_ms: Median time to fill the input tensors, timed apart, ms.
    """

    clip_length: int
    keyframe: Latency
    reuse: Latency | None
    prepare_ms: float

    @property
    def amortised_ms(self) -> float:
        """A keyframe and T-1 reuse frames by the headline statistic, per frame (paper, table 4)."""
        reuse = 0.0 if self.reuse is None else (self.clip_length - 1) * self.reuse.headline
        return (self.keyframe.headline + reuse) / self.clip_length

    @property
    def worst_ms(self) -> float:
        """The slowest single frame, ms: what a viewer notices."""
        reuse = () if self.reuse is None else self.reuse.samples_ms
        return max(self.keyframe.samples_ms + reuse)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "clip_length": self.clip_length,
            "amortised_ms": self.amortised_ms,
            "worst_ms": self.worst_ms,
            "prepare_ms": self.prepare_ms,
            "keyframe": self.keyframe.to_dict(),
            "reuse": None if self.reuse is None else self.reuse.to_dict(),
        }


def clip_latency(
    schedule: Schedule, statistic: Statistic = "median", with_preparation: bool = False
) -> ClipLatency:
    """What a schedule that holds a run of every graph amounts to.

    Args:
        schedule: The runs.
        statistic: The headline.
        with_preparation: Whether filling the input tensors counts as part of a run.
    """

    def latency(role: Role) -> Latency:
        return Latency(
            tuple(s.run_ms + with_preparation * s.prepare_ms for s in schedule.of(role)), statistic
        )

    return ClipLatency(
        clip_length=schedule.clip_length,
        keyframe=latency("frame"),
        reuse=latency("mask_head") if schedule.clip_length > 1 else None,
        prepare_ms=float(np.median([s.prepare_ms for s in schedule.samples])),
    )


def clip_times(schedule: Schedule) -> list[float]:
    """Time of each whole clip, ms."""
    by_clip: dict[int, list[Sample]] = {}
    for sample in schedule.samples:
        by_clip.setdefault(sample.clip, []).append(sample)
    times = [
        float(np.sum([s.run_ms for s in runs]))
        for runs in by_clip.values()
        if len(runs) == schedule.clip_length
    ]
    return times


@dataclass(frozen=True)
class Columns:
    """Samples as on file: a list for each field of :class:`Sample`, as tools for data read them."""

    role: tuple[Role, ...]
    clip: tuple[Whole, ...]
    start_ms: tuple[Milliseconds, ...]
    prepare_ms: tuple[Milliseconds, ...]
    run_ms: tuple[Milliseconds, ...]
    cpu: tuple[Whole | None, ...]
    khz: tuple[Whole | None, ...]


_NAMES = tuple(field.name for field in fields(Columns))


def to_columns(samples: Sequence[Sample]) -> Columns:
    """Samples in the form on file."""
    return Columns(*(tuple(getattr(s, name) for s in samples) for name in _NAMES))


def from_columns(columns: Columns) -> tuple[Sample, ...]:
    """Samples from the form on file.

    Raises:
        ValueError: The columns are not equally long.
    """
    rows = zip(*(getattr(columns, name) for name in _NAMES), strict=True)
    return tuple(Sample(*row) for row in rows)
