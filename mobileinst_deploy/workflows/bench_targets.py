"""Where a pair can be measured: this machine, and every phone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure import protocol as protocols
from mobileinst_deploy.measure.protocol import PROTOCOLS
from mobileinst_deploy.measure.validity import Measured
from mobileinst_deploy.phone.adb import choose_devices
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import Plan, reuse_pattern
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice, CancelledError
from mobileinst_deploy.phone.state import read_phone
from mobileinst_deploy.runtimes import for_device, open_host
from mobileinst_deploy.runtimes.host import HostRunner
from mobileinst_deploy.workflows.host_clips import HostEntry, measure_in_turn

DEFAULT_MAX_CELSIUS = 37.0


@dataclass(frozen=True)
class BenchSettings:
    """How every target of one measurement is treated.

    Attributes:
        protocol: Which, with its amounts.
        clip_lengths: Every T.
        core: Of a phone: ``auto``, ``prime``, ``little`` or a number.
        max_celsius: A phone must be at or below it to start.
        cooling_limit_s: How long to wait for that.
        limit_s: Wall clock of a phone's runner.
        live_kernels: Kernels handed to reuse frames; None means the keyframe's own, all of them.
    """

    protocol: protocols.Protocol = PROTOCOLS["sd778g"]
    clip_lengths: tuple[int, ...] = (1, 3, 6)
    core: str = "auto"
    max_celsius: float = DEFAULT_MAX_CELSIUS
    cooling_limit_s: float = protocols.COOLING_LIMIT_S
    limit_s: int = 7200
    live_kernels: int | None = None

    def live(self, pair: ExportBundle) -> int:
        """How many kernels this pair's reuse frames are given.

        Raises:
            ConfigError: The pair has fewer, or takes all of them only.
        """
        n = pair.config.num_queries
        live = n if self.live_kernels is None else self.live_kernels
        axis = pair.graphs["mask_head"].spec.inputs[1].shape[1]
        if not 1 <= live <= n:
            raise ConfigError(
                f"{live} live kernels cannot be: the model has {n}", f"Use --live-kernels 1 to {n}"
            )
        if isinstance(axis, int) and live != axis:
            raise ConfigError(
                f"{live} live kernels cannot be: this pair was exported to take all {axis}",
                "Leave --live-kernels away, or export it with --dynamic-kernels",
            )
        return live


class BenchTarget(Protocol):
    """Something that a pair can be measured on.

    Attributes:
        name: As reports name it: ``cpu``, ``adb:SERIAL``.
        runtime: What computes the graphs there.
    """

    name: str
    runtime: str

    def measure(
        self,
        pair: ExportBundle,
        settings: BenchSettings,
        cancel: threading.Event,
        progress: Progress,
    ) -> Measured:
        """Run the protocol's interleaved schedules.

        Raises:
            DeviceError: The device cannot be used, stayed too hot, or failed.
            ConfigError: The wanted core is none.
            CancelledError: Somebody asked to stop.
        """
        ...


class HostTarget:
    """One core of this machine.

    Args:
        runner: ONNX Runtime's, or ncnn's.
    """

    name = "cpu"

    def __init__(self, runner: HostRunner) -> None:
        self.runner = runner
        self.runtime = runner.runtime

    def measure(
        self,
        pair: ExportBundle,
        settings: BenchSettings,
        cancel: threading.Event,
        progress: Progress,
    ) -> Measured:
        """See :class:`BenchTarget`."""
        entry = HostEntry(self.runner, pair, settings.live(pair))
        (measured,) = measure_in_turn(
            [entry], settings.protocol, settings.clip_lengths, cancel=cancel, progress=progress
        )
        return measured


class PhoneTarget:
    """One core of a phone.

    Args:
        serial: Which phone, usable.
        device_bundle: What runs there.
        converted: The pair as that takes it.
    """

    def __init__(self, serial: str, device_bundle: DeviceBundle, converted: ExportBundle) -> None:
        self.serial = serial
        self.device_bundle = device_bundle
        self.converted = converted
        self.name = f"adb:{serial}"
        self.runtime = device_bundle.runtime_name

    def measure(
        self,
        pair: ExportBundle,
        settings: BenchSettings,
        cancel: threading.Event,
        progress: Progress,
    ) -> Measured:
        """See :class:`BenchTarget`."""
        used, live = settings.protocol, settings.live(pair)
        golden = load_golden(pair)
        own = live < pair.config.num_queries
        kernels = np.ascontiguousarray(golden.kernels(0)[:, :live]) if own else None
        images = [golden.image(i) for i in range(min(2, len(golden.images)))]
        specs = {role: graph.spec for role, graph in self.converted.graphs.items()}
        graphs = {role: graph.files for role, graph in self.converted.graphs.items()}
        device = AdbDevice(self.serial, cancel)
        with Session(device, self.device_bundle, graphs, progress) as session:
            before, waited = session.state, 0.0
            core = protocols.choose_core(before, settings.core) if used.pinned else None
            if used.strict:
                before, waited = protocols.wait_until_cool(
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
        return Measured(
            facts=session.facts,
            before=before,
            after=after,
            runtime=result.runtime,
            core=core,
            affinity=result.affinity,
            schedules=result.schedules,
            waited_s=waited,
            load_ms=result.load_ms,
            peak_memory_kib=result.peak_memory_kib,
            runner_sha256=self.device_bundle.sha256,
        )


def _sleep(device: AdbDevice, seconds: float) -> None:
    if device.cancel.wait(seconds):
        raise CancelledError


def open_targets(
    pair: ExportBundle,
    device: str,
    runtime: str,
    *,
    serials: Sequence[str] = (),
    every: bool = False,
    progress: Progress = silent,
) -> tuple[BenchTarget, ...]:
    """What a pair shall be measured on.

    Args:
        pair: The pair; converted here where the runtime takes another form of it.
        device: ``cpu`` or ``adb``.
        runtime: ``onnxruntime`` or ``ncnn``.
        serials: Which phones; none means the only one.
        every: All usable phones.
        progress: Told of what is built and converted.

    Raises:
        ConfigError: No such runtime.
        DeviceError: A phone is missing or unusable, or something to build for it.
        BundleError: The pair cannot be converted.
    """
    if device == "cpu":
        return (HostTarget(open_host(pair, runtime, progress=progress)),)
    chosen = [listed.serial for listed in choose_devices(serials, every=every)]
    converted, device_bundle = for_device(pair, runtime, progress)
    return tuple(PhoneTarget(serial, device_bundle, converted) for serial in chosen)
