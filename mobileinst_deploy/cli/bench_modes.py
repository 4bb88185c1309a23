"""What bench does with a pair, mode by mode: measure, show, answer.

Each takes options that were checked, and ends the command with its document and exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.core.errors import ConfigError

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.measure.record import LatencyRecord
    from mobileinst_deploy.workflows.bench_targets import BenchSettings


@dataclass(frozen=True)
class Where:
    """What measures, and where the record goes."""

    device: str
    runtime: str
    serials: tuple[str, ...]
    every: bool
    report: Path | None


@dataclass(frozen=True)
class Judged:
    """What a measurement is held against."""

    baseline: LatencyRecord
    share: float
    name: str


def sustained(
    pair: ExportBundle,
    where: Where,
    settings: BenchSettings,
    seconds: float,
    fps: float,
    json: bool,
) -> None:
    """A load that goes on."""
    from mobileinst_deploy.cli.tables import sustained_table
    from mobileinst_deploy.measure.sustained import Load
    from mobileinst_deploy.workflows.bench_targets import open_targets
    from mobileinst_deploy.workflows.sustained import sustain

    load = Load(seconds, fps)
    with progress_bar() as progress:
        (target,) = open_targets(
            pair, where.device, where.runtime, serials=where.serials, progress=progress
        )
        borne = sustain(pair, target, settings, load, report=where.report, progress=progress)
    show(sustained_table(borne.record), json=json)
    _tell([borne.kept.note])
    answer(borne.record.to_dict(), borne.failure, json=json)


def by_tnn(
    pair: ExportBundle, where: Where, settings: BenchSettings, folder: Path, json: bool
) -> None:
    """TNN's own test program."""
    from mobileinst_deploy.cli.tables import tnn_table
    from mobileinst_deploy.workflows.tnn import bench_tnn

    with progress_bar() as progress:
        told = bench_tnn(
            pair, folder, settings, serials=where.serials, report=where.report, progress=progress
        )
    show(tnn_table(told.record), json=json)
    _tell([told.kept.note])
    answer(told.record.to_dict(), told.failure, json=json)


def in_turn(
    pair: ExportBundle,
    baseline: ExportBundle,
    where: Where,
    settings: BenchSettings,
    share: float,
    json: bool,
) -> None:
    """Two pairs in turn."""
    from mobileinst_deploy.cli.tables import slowdown_table
    from mobileinst_deploy.workflows.against import against_pair

    if where.device != "cpu":
        raise ConfigError(
            "two pairs run in turn on this machine only",
            "Give --against a latency.json that was measured on the phone",
        )
    with progress_bar() as progress:
        found = against_pair(pair, baseline, settings, share, where.runtime, progress=progress)
    show(slowdown_table(found), json=json)
    answer(found.to_dict(), found.failure, json=json)


def counted(pair: ExportBundle, where: Where, live_kernels: int | None, json: bool) -> None:
    """Executed instructions."""
    from mobileinst_deploy.cli.tables import instructions_table
    from mobileinst_deploy.workflows.bench import count_instructions

    with progress_bar() as progress:
        counted, kept = count_instructions(
            pair, where.runtime, live_kernels=live_kernels, report=where.report, progress=progress
        )
    show(instructions_table(counted), json=json)
    _tell([kept.note])
    answer(counted.to_dict(), json=json)


def timed(
    pair: ExportBundle,
    where: Where,
    settings: BenchSettings,
    repeat: int,
    judged: Judged | None,
    *,
    explain: bool,
    json: bool,
) -> None:
    """Latency by the protocol, perhaps explained, perhaps held against an earlier record."""
    from mobileinst_deploy.cli.tables import explanation_table, latency_table, slowdown_table
    from mobileinst_deploy.measure.repeats import agreement
    from mobileinst_deploy.workflows import against as gate
    from mobileinst_deploy.workflows.bench import bench_repeatedly, explain_records
    from mobileinst_deploy.workflows.bench_targets import open_targets

    with progress_bar() as progress:
        targets = open_targets(
            *(pair, where.device, where.runtime),
            serials=where.serials,
            every=where.every,
            progress=progress,
        )
        if judged is not None:
            gate.check_measured([target.name for target in targets], judged.baseline)
        result = bench_repeatedly(
            pair, targets, settings, repeat, report=where.report, progress=progress
        )
    if result.records:
        show(latency_table(result.records), json=json)
    if repeat > 1:
        for line in agreement(result.records):
            show(line, json=json)
    problems = [problem for outcome in result.outcomes for problem in outcome.notes]
    document, failure = result.to_dict(), result.failure
    if explain:
        explained = explain_records(pair, result.records)
        for each in explained:
            show(explanation_table(each), json=json)
        document = {**document, "explained": [each.to_dict() for each in explained]}
    mine = None if judged is None else gate.of_the_same_device(result.records, judged.baseline)
    if judged is not None and mine is not None:
        held = gate.against_record(mine, judged.baseline, judged.share, judged.name)
        problems += [
            f"{record.device.name} was not judged: the baseline is of {mine.device.name}"
            for record in result.records
            if record is not mine
        ]
        show(slowdown_table(held), json=json)
        document = {**document, "against": held.to_dict()}
        failure = failure or held.failure
    _tell(problems)
    answer(document, failure, json=json)


def _tell(problems: Iterable[str | None]) -> None:
    """What went otherwise than it should beside the measurement."""
    for problem in filter(None, problems):
        note(f"Note: {problem}.", "yellow")
