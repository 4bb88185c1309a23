"""bench: measure a pair's latency on this machine or on phones, keep the records, judge them.

The host and every phone are targets of one protocol: for each T a keyframe, T-1 reuse
frames with its kernels, the next keyframe, and so on, so that both graphs see the same heat and
caches. What was measured is kept before anybody is told of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.errors import (
    ConfigError,
    DeviceError,
    MobileInstError,
)
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure import protocol as protocols
from mobileinst_deploy.measure.explain import Explanation, explain
from mobileinst_deploy.measure.instructions import InstructionRecord
from mobileinst_deploy.measure.record import LatencyRecord, make_record
from mobileinst_deploy.pair.onnx_file import count_graph_macs, load_graph
from mobileinst_deploy.runtimes import (
    as_computed,
    for_device,
    known_device,
    known_runtime,
    only_adb,
)
from mobileinst_deploy.runtimes.qemu import QemuRunner
from mobileinst_deploy.workflows.bench_targets import (
    DEFAULT_MAX_CELSIUS,
    BenchSettings,
    BenchTarget,
    open_targets,
)
from mobileinst_deploy.workflows.history import remember
from mobileinst_deploy.workflows.results import Kept, Place, not_believed, pair_place


@dataclass(frozen=True)
class TargetOutcome:
    """What became of one target: a record, or why there is none.

    Attributes:
        name: Of the target: ``cpu``, ``adb:SERIAL``.
        record: What was measured.
        error: Why nothing was.
        kept: Where the record is.
        forgotten: Why it is not in the history, or None when it is.
    """

    name: str
    record: LatencyRecord | None
    error: MobileInstError | None = None
    kept: Kept | None = None
    forgotten: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What of keeping went otherwise than it should, for people."""
        found = [None if self.kept is None else self.kept.note]
        if self.forgotten is not None:
            found.append(f"it is not in the history: {self.forgotten}")
        return tuple(filter(None, found))


@dataclass(frozen=True)
class BenchResult:
    """What a measurement gave, on every target, as often as it was repeated.

    Attributes:
        outcomes: Of the targets in turn, once for each repeat.
    """

    outcomes: tuple[TargetOutcome, ...]

    @property
    def records(self) -> tuple[LatencyRecord, ...]:
        """Of the targets that could be measured."""
        return tuple(o.record for o in self.outcomes if o.record is not None)

    def to_dict(self) -> dict[str, Any]:
        """One target's record, or all of them and what failed."""
        if len(self.outcomes) == 1 and self.records:
            return self.records[0].to_dict()
        return {
            "schema": 2,
            "devices": [record.to_dict() for record in self.records],
            "failed": [
                {"device": o.name, "cause": o.error.cause}
                for o in self.outcomes
                if o.error is not None
            ],
        }

    @property
    def failure(self) -> MobileInstError | None:
        """What a script must know, as an error; None when all is well. Every record is kept.

        It is a DeviceError when a target failed, a MeasurementInvalid when the conditions broke the
        protocol.
        """
        failed = [(o.name, o.error) for o in self.outcomes if o.error is not None]
        if failed and len(self.outcomes) == 1:
            return failed[0][1]
        if failed:
            return DeviceError(
                f"{len(failed)} of {len(self.outcomes)} devices failed: "
                + "; ".join(f"{name}: {error.cause}" for name, error in failed),
                f"{failed[0][1].next_step}; what the others measured is kept",
            )
        for outcome in self.outcomes:
            if outcome.record is not None and not outcome.record.valid:
                where = None if outcome.kept is None else outcome.kept.path
                kept = "" if where is None else f"; every sample is in {where}"
                return not_believed(
                    f"the measurement on {outcome.name}",
                    outcome.record.invalid,
                    f"Measure again when that no longer holds{kept}",
                )
        return None


def bench_pair(
    folder: str | Path,
    *,
    device: str = "cpu",
    runtime: str = "onnxruntime",
    protocol: str = "sd778g",
    clip_lengths: Sequence[int | str] = (1, 3, 6),
    runs: int | None = None,
    warmup: int | None = None,
    seconds: float | None = None,
    live_kernels: int | None = None,
    serials: Sequence[str] = (),
    every: bool = False,
    core: str | None = None,
    max_celsius: float | None = None,
    report: str | Path | None = None,
    progress: Progress = silent,
) -> BenchResult:
    """Measure single-thread latency by the protocol, and keep every record with all its samples.

    A measurement whose conditions broke the protocol is kept too, and says so: look at ``failure``
    of the result before believing it.

    Args:
        folder: The exported pair's.
        device: ``cpu``, this machine, or ``adb``, phones.
        runtime: ``onnxruntime``, ``ncnn`` or ``ncnn-fp16``.
        protocol: ``sd778g``, or ``tnn-script`` for that script's own habits.
        clip_lengths: Every T: a keyframe, then T-1 reuse frames.
        runs: Timed keyframes for each T, at least; None means the protocol's.
        warmup: Untimed runs before; None means the protocol's.
        seconds: For each T, at least; None means the protocol's.
        live_kernels: Kernels handed to reuse frames; None means all of them.
        serials: Which phones; none means the only one.
        every: Every usable phone.
        core: On phones: ``auto``, ``prime``, ``little`` or a number; None means ``auto``.
        max_celsius: A phone must be at or below it to start; None means 37.
        report: A file or folder in place of ``results/<device>-<runtime>-<form>/latency.json``.
        progress: Told of each step.

    Raises:
        ConfigError: An option is wrong or does not apply.
        BundleError: The pair cannot be loaded.
        DeviceError: No such phone, or something that it needs is missing.
        OutputError: ``report`` cannot be written.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> result = mobileinst.bench("pair", clip_lengths=(1,), runs=3, warmup=0, seconds=0)
        >>> [record.pair.model_id for record in result.records]
        ['tiny']
    """
    known_device(device)
    known_runtime(runtime)
    phones = {
        "--serial": tuple(serials) or None,
        "--all": every or None,
        "--core": core,
        "--max-temp": max_celsius,
    }
    only_adb(phones, device)
    if device == "qemu":
        raise ConfigError(
            "an emulated device has no latency",
            "Count executed instructions under qemu, or measure on a phone",
        )
    settings = BenchSettings(
        protocols.protocol(protocol, warmups=warmup, runs=runs, seconds=seconds),
        protocols.parse_clip_lengths(",".join(map(str, clip_lengths))),
        "auto" if core is None else core,
        DEFAULT_MAX_CELSIUS if max_celsius is None else max_celsius,
        live_kernels=live_kernels,
    )
    protocols.check_gate(settings.max_celsius)
    protocols.check_core(settings.core)
    pair = as_computed(load_bundle(Path(folder)), runtime)
    settings.live(pair)
    targets = open_targets(pair, device, runtime, serials=serials, every=every, progress=progress)
    place = None if report is None else Path(report)
    return bench(pair, targets, settings, report=place, progress=progress)


def bench(
    pair: ExportBundle,
    targets: Sequence[BenchTarget],
    settings: BenchSettings,
    *,
    report: Path | None = None,
    progress: Progress = silent,
) -> BenchResult:
    """Measure a pair on every target at once, and keep each record as soon as it is there.

    A target that fails does not stop the others. An interruption stops all of them, and this
    returns to the caller's KeyboardInterrupt only when nothing runs on any device.

    Args:
        pair: What to measure.
        targets: From :func:`~mobileinst_deploy.workflows.bench_targets.open_targets`.
        settings: The same for all.
        report: A file or folder in place of ``results/<device>-<runtime>-<form>/latency.json``.
        progress: Told of each target's steps, its name in the label where there are several.

    Raises:
        ConfigError: The pair cannot be measured like that.
        OutputError: ``report`` cannot be written.
    """
    live = settings.live(pair)
    several = len(targets) > 1
    places = [_place(pair, target, report, several) for target in targets]
    for place in places:
        place.check()
    cancel, told = threading.Event(), threading.Lock()

    def tell(name: str) -> Progress:
        def listener(label: str, done: float, total: float | None) -> None:
            with told:
                progress(f"{name}: {label}" if several else label, done, total)

        return listener

    def work(target: BenchTarget, place: Place) -> Callable[[], TargetOutcome]:
        def measured() -> TargetOutcome:
            try:
                found = target.measure(pair, settings, cancel, tell(target.name))
                record = make_record(
                    pair,
                    settings.protocol,
                    found,
                    live_kernels=live,
                    core_wanted=settings.core,
                    max_celsius=settings.max_celsius if found.facts.kind == "adb" else None,
                    measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
                )
            except MobileInstError as error:
                return TargetOutcome(target.name, None, error)
            kept = place.keep(record.to_dict())
            return TargetOutcome(target.name, record, kept=kept, forgotten=remember(record))

        return measured

    futures: list[Future[TargetOutcome]] = []
    with ThreadPoolExecutor(max_workers=len(targets)) as pool:
        try:
            futures += [pool.submit(work(*each)) for each in zip(targets, places, strict=True)]
            # A bare wait would not let Ctrl-C through on every platform.
            while wait(futures, timeout=0.5).not_done:
                pass
        except BaseException:
            cancel.set()
            raise
    return BenchResult(tuple(future.result() for future in futures))


def bench_repeatedly(
    pair: ExportBundle,
    targets: Sequence[BenchTarget],
    settings: BenchSettings,
    times: int,
    *,
    report: Path | None = None,
    progress: Progress = silent,
) -> BenchResult:
    """Measure several times over; see :func:`bench`.

    Before each turn a phone that is warmer than the settings allow cools down. Every record is in
    the history, and the last one of a target in its file.

    Args:
        pair: What to measure.
        targets: All of them, each time.
        settings: The same each time.
        times: How often, 1 to 100.
        report: As for :func:`bench`.
        progress: Told of each turn.

    Raises:
        ConfigError: So often cannot be.
    """
    if not 1 <= times <= 100:
        raise ConfigError(f"{times} repeats cannot be", "Use --repeat 1 to 100")
    outcomes: list[TargetOutcome] = []
    for turn in range(times):

        def listener(label: str, done: float, total: float | None, turn: int = turn) -> None:
            progress(f"{turn + 1} of {times}: {label}" if times > 1 else label, done, total)

        outcomes += bench(pair, targets, settings, report=report, progress=listener).outcomes
    return BenchResult(tuple(outcomes))


def _place(pair: ExportBundle, target: BenchTarget, report: Path | None, several: bool) -> Place:
    # A file cannot hold several devices' records: each goes to its own folder beside it.
    folder = report.with_suffix("") if several and report is not None else report
    return pair_place("latency", pair, target.name, target.runtime, folder)


def explain_records(
    pair: ExportBundle, records: Sequence[LatencyRecord]
) -> tuple[Explanation, ...]:
    """Set each measurement of a pair beside the paper's protocol, and say what differs."""
    n = pair.config.num_queries
    macs = count_graph_macs(load_graph(pair.graphs["frame"].onnx), {"n": n})
    return tuple(explain(record, macs) for record in records)


def count_instructions(
    pair: ExportBundle,
    runtime: str = "onnxruntime",
    *,
    live_kernels: int | None = None,
    report: Path | None = None,
    progress: Progress = silent,
) -> tuple[InstructionRecord, Kept]:
    """Count the ARM instructions that one run of each graph executes under qemu, and keep them.

    Args:
        pair: The pair.
        runtime: ``onnxruntime``, ``ncnn`` or ``ncnn-fp16``.
        live_kernels: Kernels handed to the mask-head graph; None means all of them.
        report: A file or folder in place of ``results/qemu-<runtime>-<form>/instructions.json``.
        progress: Told of each step.

    Raises:
        ConfigError: More live kernels than there are, or fewer in a static export.
        DeviceError: qemu, its plugin or the bundle is missing, or the run failed.
        MeasurementInvalid: Two starts gave different counts.
        OutputError: ``report`` cannot be written.
    """
    pair = as_computed(pair, runtime)
    live = BenchSettings(live_kernels=live_kernels).live(pair)
    place = pair_place("instructions", pair, "qemu", runtime, report)
    place.check()
    golden = load_golden(pair)
    converted, device_bundle = for_device(pair, runtime, progress)
    progress("counting under qemu", 0, None)
    counted = QemuRunner(converted, device_bundle).count_instructions(
        golden.image(0), np.ascontiguousarray(golden.kernels(0)[:, :live])
    )
    record = InstructionRecord(
        bundle_sha256=pair.sha256,
        model_id=pair.model_id,
        form=pair.form,
        runtime=device_bundle.runtime_name,
        live_kernels=live,
        instructions={role: found.count for role, found in counted.items()},
        equal_runs={role: found.runs for role, found in counted.items()},
        kinds={role: found.kinds for role, found in counted.items()},
        caveat=pair.caveat,
    )
    return record, place.keep(record.to_dict())
