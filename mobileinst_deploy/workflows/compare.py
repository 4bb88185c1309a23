"""compare: several pairs measured in turn on one device, beside their costs and their AP.

Models, forms and runtimes meet the same heat and neighbours, so that their ratio means more than
two measurements made apart. The paper's Figure 1 is drawn of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.errors import (
    BundleError,
    ConfigError,
    MobileInstError,
)
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure.record import LatencyRecord, make_record
from mobileinst_deploy.measure.samples import clip_times
from mobileinst_deploy.measure.slowdown import Slowdown, paired
from mobileinst_deploy.measure.validity import Measured
from mobileinst_deploy.pair.onnx_file import count_graph_macs, load_graph
from mobileinst_deploy.runtimes import (
    as_computed,
    known_device,
    known_runtime,
    only_adb,
    open_host,
)
from mobileinst_deploy.workflows.bench import count_instructions
from mobileinst_deploy.workflows.bench_targets import BenchSettings, BenchTarget, open_targets
from mobileinst_deploy.workflows.history import Page
from mobileinst_deploy.workflows.host_clips import HostEntry, measure_in_turn
from mobileinst_deploy.workflows.kept import Precision, counts_of, precision_of
from mobileinst_deploy.workflows.phone_rounds import joined, measure_in_rounds, middle_clip
from mobileinst_deploy.workflows.results import not_believed

SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """One of those that are compared: a pair by a runtime.

    Attributes:
        name: For people.
        pair: The pair.
        runtime: ``onnxruntime`` or ``ncnn``.
    """

    name: str
    pair: ExportBundle
    runtime: str


@dataclass(frozen=True)
class Row:
    """What is known of one entry.

    Attributes:
        entry: Of what.
        macs: Multiply-accumulates of each graph as it is, convolutions and products; None where a
            form's operators hide them.
        instructions: Executed ARM instructions of each graph, counted now or before; None: never.
        precision: AP, and on what; None where this pair was not evaluated.
        record: Its latency; None under qemu.
        ratios: Time of a frame over the reference's by T, with an interval of
            confidence; empty on an emulated device.
    """

    entry: Entry
    macs: Mapping[Role, int | None]
    instructions: Mapping[str, int] | None
    precision: Precision | None
    record: LatencyRecord | None = None
    ratios: tuple[Slowdown, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form; every sample is in the history, as of any measurement."""
        pair, record = self.entry.pair, self.record
        precision = self.precision
        latency = None
        if record is not None:
            latency = {
                "valid": record.valid,
                "invalid": list(record.invalid),
                "clips": [] if record.emulated else [c.to_dict() for c in record.clips],
                "ratios": [ratio.to_dict() for ratio in self.ratios],
            }
        return {
            "name": self.entry.name,
            "folder": str(pair.folder),
            "bundle_sha256": pair.sha256,
            "model_id": pair.model_id,
            "form": pair.form,
            "trained": pair.trained,
            "input_size": list(pair.config.input_size),
            "runtime": self.entry.runtime if record is None else record.runtime,
            "macs": dict(self.macs),
            "instructions": None if self.instructions is None else dict(self.instructions),
            "AP": None if precision is None else precision.ap,
            "AP_on": None if precision is None else precision.on,
            "AP_on_sha256": None if precision is None else precision.sha256,
            "latency": latency,
        }


@dataclass(frozen=True)
class Comparison:
    """Several entries beside each other.

    Attributes:
        device: ``cpu``, ``adb:SERIAL`` or ``qemu``.
        emulated: Whether it is an emulated phone, whose times are not shown.
        to: Name of the entry that the others are held against.
        rows: In the order of the command line, a pair's runtimes together.
        forgotten: Why a record is not in the history; None when all are.
    """

    device: str
    emulated: bool
    to: str
    rows: tuple[Row, ...]
    forgotten: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        rows = [row.to_dict() for row in self.rows]
        return {**asdict(replace(self, rows=())), "schema": SCHEMA, "rows": rows}

    @property
    def failure(self) -> MobileInstError | None:
        """A MeasurementInvalid when one of the measurements must not be believed, else None."""
        for row in self.rows:
            if row.record is not None and not row.record.valid:
                return not_believed(f"the measurement of {row.entry.name}", row.record.invalid)
        return None

    def instruction_ratio(self, row: Row, role: Role = "frame") -> float | None:
        """Instructions of an entry's graph over the reference's; None where one is not counted."""
        base = next(each for each in self.rows if each.entry.name == self.to).instructions
        return None if base is None or row.instructions is None else _over(row, base, role)


def _over(row: Row, base: Mapping[str, int], role: Role) -> float | None:
    mine = None if row.instructions is None else row.instructions.get(role)
    return None if mine is None or not base.get(role) else mine / base[role]


def open_entries(folders: Sequence[Path], runtimes: Sequence[str]) -> tuple[Entry, ...]:
    """The pairs, each by every runtime, under names that tell them apart.

    Raises:
        ConfigError: Fewer than two, one twice, or no such runtime.
        BundleError: A pair cannot be loaded.
    """
    for runtime in runtimes:
        known_runtime(runtime)
    pairs = [load_bundle(folder) for folder in folders]
    if len({pair.folder.resolve() for pair in pairs}) != len(pairs):
        raise ConfigError("one pair is named twice", "Name every pair once")
    if len(set(runtimes)) != len(runtimes):
        raise ConfigError("one runtime is named twice", "Name every runtime once")
    if len(folders) * len(runtimes) < 2:
        raise ConfigError(
            "one pair by one runtime has nothing to be compared with",
            "Name another pair, or another --runtime",
        )
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return tuple(
        Entry(
            name if len(runtimes) == 1 else f"{name}, {runtime}",
            as_computed(pair, runtime),
            runtime,
        )
        for name, pair in zip(names, pairs, strict=True)
        for runtime in runtimes
    )


def compare(
    entries: Sequence[Entry],
    settings: BenchSettings,
    *,
    device: str = "cpu",
    serial: str | None = None,
    to: Entry | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Measure every entry in turn on one device; under qemu, count instructions instead.

    Args:
        entries: From :func:`open_entries`.
        settings: The same for all; each reuse frame is given all of its pair's kernels.
        device: ``cpu``, ``adb`` or ``qemu``.
        serial: Which phone; None means the only one.
        to: The reference; None means the first.
        progress: Told of each step.

    Raises:
        ConfigError: No such device.
        BundleError: A pair cannot be converted for its runtime.
        DeviceError: The device is missing or failed.
        MeasurementInvalid: Two counts of one graph differ.
    """
    known_device(device)
    only_adb({"--serial": serial}, device)
    base = entries[0] if to is None else to
    rows = [_row(entry) for entry in entries]
    if device == "qemu":
        counted = tuple(_counted(row, progress) for row in rows)
        return Comparison("qemu", True, base.name, counted)
    notebook = _Notebook(entries, settings)
    if device == "cpu":
        where, measured, times = _on_this_machine(entries, settings, progress)
    else:
        where, measured, times = _on_a_phone(entries, settings, serial, notebook, progress)
    records = [notebook.keep(which, found) for which, found in enumerate(measured)]
    emulated = any(record.emulated for record in records)
    reference = times[list(entries).index(base)]
    ratios = [
        () if emulated else tuple(paired(t, reference[t], mine[t]) for t in settings.clip_lengths)
        for mine in times
    ]
    return Comparison(
        where,
        emulated,
        base.name,
        tuple(
            replace(row, record=record, ratios=each)
            for row, record, each in zip(rows, records, ratios, strict=True)
        ),
        notebook.forgotten,
    )


#: By T, one time for each turn, ms.
_Times = dict[int, list[float]]


def _on_this_machine(
    entries: Sequence[Entry], settings: BenchSettings, progress: Progress
) -> tuple[str, list[Measured], list[_Times]]:
    opened = []
    for entry in entries:
        with _of(entry):
            runner = open_host(entry.pair, entry.runtime, progress=progress)
        opened.append(HostEntry(runner, entry.pair, settings.live(entry.pair)))
    measured = measure_in_turn(opened, settings.protocol, settings.clip_lengths, progress=progress)
    times = [{s.clip_length: clip_times(s) for s in each.schedules} for each in measured]
    return "cpu", measured, times


def _on_a_phone(
    entries: Sequence[Entry],
    settings: BenchSettings,
    serial: str | None,
    notebook: _Notebook,
    progress: Progress,
) -> tuple[str, list[Measured], list[_Times]]:
    """Rounds in which every entry has its turn, each a start of the runner of its own."""
    targets: list[BenchTarget] = []
    for entry in entries:
        with _of(entry):
            chosen = () if serial is None else (serial,)
            targets += open_targets(
                entry.pair, "adb", entry.runtime, serials=chosen, progress=progress
            )
    pairs = [(target, entry.pair) for target, entry in zip(targets, entries, strict=True)]
    rounds = measure_in_rounds(pairs, settings, progress, notebook.keep)
    times = [
        {t: [middle_clip(each, t) for each in mine] for t in settings.clip_lengths}
        for mine in rounds
    ]
    return targets[0].name, [joined(each) for each in rounds], times


class _Notebook:
    """Keeps a record of each entry in the history, as `bench` would make it, while it grows.

    What ends the work in the middle, a phone that leaves or a signal, costs nothing that was
    measured before.
    """

    def __init__(self, entries: Sequence[Entry], settings: BenchSettings) -> None:
        self._entries = entries
        self._settings = settings
        self._now = datetime.now(UTC).isoformat(timespec="seconds")
        self._pages = [Page() for _ in entries]
        #: Why a record is not in the history; None when all are.
        self.forgotten: str | None = None

    def keep(self, which: int, found: Measured) -> LatencyRecord:
        """The record of an entry by all that was measured of it so far; it is kept."""
        entry, settings = self._entries[which], self._settings
        record = make_record(
            entry.pair,
            settings.protocol,
            found,
            live_kernels=settings.live(entry.pair),
            core_wanted=settings.core,
            max_celsius=settings.max_celsius if found.facts.kind == "adb" else None,
            measured_at=self._now,
        )
        others = ", ".join(each.name for each in self._entries if each is not entry)
        record = replace(record, notes=(*record.notes, f"measured in turn with {others}"))
        self.forgotten = self._pages[which].keep(record) or self.forgotten
        return record


def _row(entry: Entry) -> Row:
    pair = entry.pair
    axes = {"n": pair.config.num_queries}
    macs: dict[Role, int | None] = {
        role: count_graph_macs(load_graph(pair.graphs[role].onnx), axes) for role in ROLES
    }
    return Row(entry, macs, counts_of(pair, entry.runtime), precision_of(pair, entry.runtime))


def _counted(row: Row, progress: Progress) -> Row:
    """The row with its instructions, counted unless that was done before."""
    if row.instructions is not None:
        return row
    with _of(row.entry):
        record, _ = count_instructions(row.entry.pair, row.entry.runtime, progress=progress)
    return replace(row, instructions={str(role): n for role, n in record.instructions.items()})


@contextmanager
def _of(entry: Entry) -> Iterator[None]:
    """Says of which entry a pair's own error speaks."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{entry.name}: {error.cause}", error.next_step) from error
