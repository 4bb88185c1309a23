"""The record of a latency measurement: the form of ``latency.json``, schema 2.

::

    {"schema": 2, "mobileinst": version, "measured_at": "2026-01-31T12:00:00Z",
     "pair": {PairFacts}, "device": {DeviceFacts}, "emulated": false,
     "protocol": {Protocol}, "conditions": {Conditions},
     "runtime", "runner_bundle_sha256", "load_ms", "peak_memory_kib",
     "valid", "invalid": [reasons], "notes": [...], "paper": [rows],
     "clips": [statistics, one entry for each T],
     "schedules": [{"clip_length", "wall_ms", "samples": {column: [...]}}],
     "state_before": {DeviceState}, "state_after": {DeviceState}}

Of an emulated device there are neither ``clips`` nor ``schedules``: its samples lie under
``emulated_schedules``, so that nobody takes them for latencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.documents import Blame, Whole, convert, read_json
from mobileinst_deploy.core.errors import DeviceError, InputError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.version import __version__
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.measure.paper import PaperRow, compare_with_paper
from mobileinst_deploy.measure.protocol import Protocol
from mobileinst_deploy.measure.samples import (
    ClipLatency,
    Columns,
    Milliseconds,
    Schedule,
    clip_latency,
    from_columns,
    to_columns,
)
from mobileinst_deploy.measure.validity import Measured, check_whole, judge

SCHEMA = 2
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class PairFacts:
    """What was measured.

    Attributes:
        bundle_sha256: Of the pair's manifest.
        pair_id: 16 hex digits.
        model_id: Its model.
        input_size: (height, width), pixels.
        trained: Whether the weights were trained; it does not change the speed.
        form: ``plain``, ``optimized``, ``half``, ``int8``.
        precision: What the graphs compute in.
        num_queries: N, the kernels that a keyframe gives.
    """

    bundle_sha256: str
    pair_id: str
    model_id: str
    input_size: tuple[int, int]
    trained: bool
    form: str
    precision: str
    num_queries: int


def pair_facts(pair: ExportBundle) -> PairFacts:
    """What a record says of the pair that was measured."""
    return PairFacts(
        pair.sha256,
        pair.pair_id,
        pair.model_id,
        pair.config.input_size,
        pair.trained,
        pair.form,
        pair.precision,
        pair.config.num_queries,
    )


@dataclass(frozen=True)
class Conditions:
    """How it was measured, beyond the protocol.

    Attributes:
        clip_lengths: Every T, in order.
        live_kernels: Kernels handed to reuse frames.
        threads: Always 1.
        core_wanted: ``auto``, ``prime``, ``little``, a number, or ``any``.
        core: The one that was taken, or None where the runner was left alone.
        affinity: What the kernel allowed, read back.
        max_celsius: A phone had to be at or below it to start; None where nothing was asked.
        waited_to_cool_s: How long that took, s.
    """

    clip_lengths: tuple[int, ...]
    live_kernels: int
    threads: int
    core_wanted: str
    core: int | None
    affinity: tuple[int, ...]
    max_celsius: float | None
    waited_to_cool_s: float


@dataclass(frozen=True)
class LatencyRecord:
    """A latency measurement, every sample of it, and all that decides whether to believe it.

    Attributes:
        mobileinst: Version of the program that measured.
        measured_at: When it ended, UTC, ISO 8601.
        pair: What was measured.
        device: Where.
        protocol: How.
        conditions: How, beyond that.
        runtime: Name and version of what computed the graphs.
        runner_bundle_sha256: Of the device bundle; None on this machine.
        load_ms: Time to load each graph, ms; None on an emulator.
        peak_memory_kib: Highest resident memory, KiB, or None if unknown.
        schedules: Every sample, by T.
        state_before: Clocks, temperatures, battery, load before.
        state_after: The same after.
        invalid: Reasons why it must not be believed; empty when valid.
        notes: What a reader must know, such as why it is not comparable with the paper.
        paper: The paper's figures of the same model, size and chip; mostly none.
    """

    mobileinst: str
    measured_at: str
    pair: PairFacts
    device: DeviceFacts
    protocol: Protocol
    conditions: Conditions
    runtime: str
    runner_bundle_sha256: str | None
    load_ms: Mapping[Role, float] | None
    peak_memory_kib: int | None
    schedules: tuple[Schedule, ...]
    state_before: DeviceState
    state_after: DeviceState
    invalid: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    paper: tuple[PaperRow, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the protocol's conditions held throughout."""
        return not self.invalid

    @property
    def emulated(self) -> bool:
        """Whether the times are an emulator's, which are never shown as latencies."""
        return self.device.emulated

    @cached_property
    def clips(self) -> tuple[ClipLatency, ...]:
        """The statistics that the protocol reports, one entry for each T."""
        used = self.protocol
        return tuple(
            clip_latency(schedule, used.statistic, used.with_preparation)
            for schedule in self.schedules
        )

    def to_dict(self) -> dict[str, Any]:
        """The form of ``latency.json``."""
        schedules = [
            {
                "clip_length": schedule.clip_length,
                "wall_ms": schedule.wall_ms,
                "samples": asdict(to_columns(schedule.samples)),
            }
            for schedule in self.schedules
        ]
        times: dict[str, Any] = (
            {"emulated_schedules": schedules}
            if self.emulated
            else {"clips": [clip.to_dict() for clip in self.clips], "schedules": schedules}
        )
        return {
            "schema": SCHEMA,
            "mobileinst": self.mobileinst,
            "measured_at": self.measured_at,
            "pair": asdict(self.pair),
            "device": self.device.to_dict(),
            "emulated": self.emulated,
            "protocol": asdict(self.protocol),
            "conditions": asdict(self.conditions),
            "runtime": self.runtime,
            "runner_bundle_sha256": self.runner_bundle_sha256,
            "load_ms": None if self.load_ms is None else dict(self.load_ms),
            "peak_memory_kib": self.peak_memory_kib,
            "valid": self.valid,
            "invalid": list(self.invalid),
            "notes": list(self.notes),
            "paper": [asdict(row) for row in self.paper],
            **times,
            "state_before": self.state_before.to_dict(),
            "state_after": self.state_after.to_dict(),
        }


@dataclass(frozen=True)
class _ScheduleOnFile:
    clip_length: Whole
    wall_ms: Milliseconds
    samples: Columns


@dataclass(frozen=True)
class _OnFile:
    """What of ``latency.json`` says something that the rest does not."""

    mobileinst: str
    measured_at: str
    pair: PairFacts
    device: DeviceFacts
    protocol: Protocol
    conditions: Conditions
    runtime: str
    runner_bundle_sha256: str | None
    load_ms: dict[Role, Milliseconds] | None
    peak_memory_kib: Whole | None
    schedules: Annotated[tuple[_ScheduleOnFile, ...], Meta(min_length=1)]
    state_before: DeviceState
    state_after: DeviceState
    invalid: tuple[str, ...]
    notes: tuple[str, ...]
    paper: tuple[PaperRow, ...]


@places(0)
def read_record(path: Path) -> LatencyRecord:
    """Read a ``latency.json``, believing nothing of it beyond its form.

    Raises:
        InputError: It cannot be read, has another schema, or is no whole record.
    """
    blame = Blame(str(path), InputError, "Measure again with `mobileinst bench`")
    return _record(read_json(path, dict[str, Any], blame, most=_MAX_BYTES), blame)


def read_records(path: Path) -> tuple[LatencyRecord, ...]:
    """Read a ``latency.json``, or what ``bench --json`` printed of several devices or repeats.

    The latter is ``{"schema": 2, "devices": [latency.json, ...]}``, which a device farm that runs
    ``bench`` itself can write too.

    Raises:
        InputError: It cannot be read, or one of the records is none.
    """
    blame = Blame(str(path), InputError, "Measure again with `mobileinst bench`")
    document = read_json(path, dict[str, Any], blame, most=_MAX_BYTES)
    if "devices" not in document:
        return (_record(document, blame),)
    if document.get("schema") != SCHEMA:
        raise blame.wrong(f"it holds no latency records of schema {SCHEMA}")
    every = convert(document["devices"], list[dict[str, Any]], blame)
    if not every:
        raise blame.wrong("it holds no record of a device")
    # Each is told from the others by its place.
    return tuple(
        _record(each, Blame(f"{path}, record {place}", InputError, blame.next_step))
        for place, each in enumerate(every, start=1)
    )


def _record(document: dict[str, Any], blame: Blame) -> LatencyRecord:
    if document.pop("schema", None) != SCHEMA:
        raise blame.wrong(f"it is no latency record of schema {SCHEMA}")
    # Computed from the rest, and so left aside.
    for name in ("clips", "valid"):
        document.pop(name, None)
    emulated = document.pop("emulated", False)
    device = document.get("device")
    if isinstance(device, dict):
        for name in ("comparable_with_paper", "not_comparable_because"):
            device.pop(name, None)
    if "emulated_schedules" in document:
        document["schedules"] = document.pop("emulated_schedules")
    found = convert(document, _OnFile, blame)
    if found.device.emulated != emulated:
        raise blame.wrong("it does not say clearly whether the device was emulated")
    try:
        schedules = tuple(
            Schedule(s.clip_length, s.wall_ms, from_columns(s.samples)) for s in found.schedules
        )
        check_whole(schedules)
    except ValueError:
        raise blame.wrong("the columns of its samples are not equally long") from None
    except DeviceError as error:
        raise blame.wrong(error.cause) from None
    values = {f.name: getattr(found, f.name) for f in fields(_OnFile)}
    return LatencyRecord(**{**values, "schedules": schedules})


def make_record(
    pair: ExportBundle,
    protocol: Protocol,
    measured: Measured,
    *,
    live_kernels: int,
    core_wanted: str,
    max_celsius: float | None,
    measured_at: str,
) -> LatencyRecord:
    """Judge what a device gave, set it beside the paper, and make the record of it.

    Raises:
        DeviceError: A schedule lacks the runs of a graph.
    """
    check_whole(measured.schedules)
    verdict = judge(protocol, measured)
    n = pair.config.num_queries
    paper: tuple[PaperRow, ...] = ()
    if measured.facts.kind == "host":
        beside = "measured on this host, not on a phone: not comparable with the paper"
    else:
        comparison = compare_with_paper(
            pair.config,
            measured.facts,
            [f"reuse frames with {live_kernels} of {n} kernels"] * (live_kernels < n)
            + [f"{pair.precision} instead of fp32"] * (pair.precision != "fp32"),
        )
        paper, beside = comparison.rows, comparison.sentence
    notes = [*verdict.notes, beside]
    if pair.caveat is not None:
        notes.append(pair.caveat)
    return LatencyRecord(
        mobileinst=__version__,
        measured_at=measured_at,
        pair=pair_facts(pair),
        device=measured.facts,
        protocol=protocol,
        conditions=Conditions(
            clip_lengths=tuple(s.clip_length for s in measured.schedules),
            live_kernels=live_kernels,
            threads=1,
            core_wanted=core_wanted if protocol.pinned else "any",
            core=measured.core,
            affinity=measured.affinity,
            max_celsius=max_celsius if protocol.strict else None,
            waited_to_cool_s=round(measured.waited_s, 1),
        ),
        runtime=measured.runtime,
        runner_bundle_sha256=measured.runner_sha256,
        load_ms=None if measured.facts.emulated else dict(measured.load_ms),
        peak_memory_kib=measured.peak_memory_kib,
        schedules=measured.schedules,
        state_before=measured.before,
        state_after=measured.after,
        invalid=verdict.invalid,
        notes=tuple(notes),
        paper=paper,
    )
