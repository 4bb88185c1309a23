"""Latency on phones over adb, by protocol: several phones at once, one report each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.errors import ConfigError, MobileInstError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import BenchReport
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.paper import compare_with_paper
from mobileinst_deploy.phone.plan import Plan, reuse_pattern
from mobileinst_deploy.phone.protocol import (
    COOLING_LIMIT_S,
    Protocol,
    choose_core,
    clip_latencies,
    judge,
    wait_until_cool,
)
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice, CancelledError
from mobileinst_deploy.phone.state import read_phone

DEFAULT_MAX_CELSIUS = 37.0


@dataclass(frozen=True)
class PhoneSettings:
    """How every phone of one measurement is treated.

    Attributes:
        protocol: Which, with its amounts.
        clip_lengths: Every T.
        core: ``auto``, ``prime``, ``little`` or a number.
        max_celsius: The phone must be at or below it to start.
        cooling_limit_s: How long to wait for that.
        limit_s: Wall clock of the runner.
        live_kernels: Kernels handed to reuse frames; None means the keyframe's own, all of them.
    """

    protocol: Protocol
    clip_lengths: tuple[int, ...] = (1, 3, 6)
    core: str = "auto"
    max_celsius: float = DEFAULT_MAX_CELSIUS
    cooling_limit_s: float = COOLING_LIMIT_S
    limit_s: int = 7200
    live_kernels: int | None = None


@dataclass(frozen=True)
class PhoneOutcome:
    """What became of one phone: a report, or why there is none."""

    serial: str
    report: BenchReport | None
    error: MobileInstError | None


def bench_phones(
    pair: ExportBundle,
    device_bundle: DeviceBundle,
    serials: Sequence[str],
    settings: PhoneSettings,
    *,
    progress: Progress = silent,
) -> tuple[PhoneOutcome, ...]:
    """Measure a pair on every phone at once.

    A phone that fails does not stop the others. An interruption stops all of them, and this returns
    to the caller's KeyboardInterrupt only when nothing runs on any phone.

    Args:
        pair: What to measure.
        device_bundle: What runs there.
        serials: The phones, each usable.
        settings: The same for all.
        progress: Told of each phone's steps, its serial in the label where there are several.
    """
    cancel = threading.Event()
    told = threading.Lock()

    def listener(serial: str) -> Progress:
        def tell(label: str, done: float, total: float | None) -> None:
            with told:
                progress(f"{serial}: {label}" if len(serials) > 1 else label, done, total)

        return tell

    def work(serial: str) -> Callable[[], PhoneOutcome]:
        def measured() -> PhoneOutcome:
            try:
                device = AdbDevice(serial, cancel)
                report = bench_phone(pair, device_bundle, device, settings, listener(serial))
            except MobileInstError as error:
                return PhoneOutcome(serial, None, error)
            return PhoneOutcome(serial, report, None)

        return measured

    futures: list[Future[PhoneOutcome]] = []
    with ThreadPoolExecutor(max_workers=len(serials)) as pool:
        try:
            futures += [pool.submit(work(serial)) for serial in serials]
            # A bare wait would not let Ctrl-C through on every platform.
            while wait(futures, timeout=0.5).not_done:
                pass
        except BaseException:
            cancel.set()
            raise
    return tuple(future.result() for future in futures)


def bench_phone(
    pair: ExportBundle,
    device_bundle: DeviceBundle,
    device: AdbDevice,
    settings: PhoneSettings,
    progress: Progress = silent,
) -> BenchReport:
    """Measure a pair on one phone.

    Raises:
        DeviceError: The phone cannot be used, stayed too hot, or failed.
        ConfigError: The wanted core is none.
        CancelledError: Somebody asked to stop.
    """
    used = settings.protocol
    golden = load_golden(pair)
    n = pair.config.num_queries
    live = settings.live_kernels or n
    if live > n:
        raise ConfigError(f"the model has only {n} kernels", f"Use --live-kernels 1 to {n}")
    kernels = np.ascontiguousarray(golden.kernels(0)[:, :live]) if live < n else None
    images = [golden.image(i) for i in range(min(2, len(golden.images)))]
    specs = {role: graph.spec for role, graph in pair.graphs.items()}
    graphs = {role: graph.files for role, graph in pair.graphs.items()}
    with Session(device, device_bundle, graphs, progress) as session:
        facts, before, waited = session.facts, session.state, 0.0
        core = choose_core(before, settings.core) if used.pinned else None
        if used.strict:
            before, waited = wait_until_cool(
                lambda: read_phone(device)[1],
                settings.max_celsius,
                limit_s=settings.cooling_limit_s,
                progress=progress,
                sleep=lambda seconds: _sleep(device, seconds),
            )
        plan = Plan(
            "bench",
            reuse_pattern(specs, images, kernels),
            core=core,
            warmups=used.warmups,
            runs=used.runs,
            seconds=used.seconds,
            clip_lengths=settings.clip_lengths,
            limit_seconds=settings.limit_s,
        )
        result = session.start(plan)
        _, after = read_phone(device)
    invalid, notes = judge(used, result, before, after, core=core, emulated=facts.emulated)
    comparison = compare_with_paper(
        pair.config,
        facts,
        [f"reuse frames with {live} of {n} kernels"] * (live < n)
        + [f"{pair.precision} instead of fp32"] * (pair.precision != "fp32"),
    )
    paper = [
        {"name": row.name, "clip_length": row.clip_length, "ms": row.ms} for row in comparison.rows
    ]
    device_facts: dict[str, Any] = {
        "kind": "adb",
        "name": f"adb:{device.serial}",
        "processor": facts.soc or "unknown SoC",
        **facts.to_dict(),
    }
    return BenchReport(
        bundle_sha256=pair.sha256,
        model_id=pair.model_id,
        input_size=pair.config.input_size,
        trained=pair.trained,
        device=device_facts,
        emulated=facts.emulated,
        settings={
            "protocol": used.name,
            "clip_lengths": list(settings.clip_lengths),
            "warmup": used.warmups,
            "runs": used.runs,
            "seconds": used.seconds,
            "statistic": used.statistic,
            "with_preparation": used.with_preparation,
            "threads": 1,
            "precision": pair.precision,
            "core_wanted": settings.core if used.pinned else "any",
            "core": core,
            "affinity": list(result.affinity),
            "max_celsius": settings.max_celsius if used.strict else None,
            "waited_to_cool_s": round(waited, 1),
            "live_kernels": live,
            "runtime": result.runtime,
            "runner_bundle_sha256": device_bundle.sha256,
            "load_ms": None if facts.emulated else dict(result.load_ms),
            "peak_memory_kib": result.peak_memory_kib,
            "paper": paper,
        },
        clips=clip_latencies(result, used),
        state_before=before.to_dict(),
        state_after=after.to_dict(),
        invalid=invalid,
        notes=(*notes, comparison.sentence),
    )


def _sleep(device: AdbDevice, seconds: float) -> None:
    if device.cancel.wait(seconds):
        raise CancelledError
