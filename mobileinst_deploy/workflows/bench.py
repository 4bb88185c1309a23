"""Latency on this machine, by the protocol's interleaved pattern; never a phone's latency.

The same schedule runs on a phone (``device``): for each clip length T a keyframe, T-1 reuse frames
with its kernels, the next keyframe, and so on, so that both graphs see the same heat and caches.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import BenchReport, ClipLatency, Latency
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner, pinned_to_one_core

DEFAULT_CLIP_LENGTHS = (1, 3, 6)
DEFAULT_RUNS = 50
DEFAULT_WARMUP = 10
DEFAULT_SECONDS = 10.0
#: Above this spread (MAD over median) the host was too busy for its numbers to mean anything.
_LARGEST_SPREAD = 0.15


def parse_clip_lengths(text: str) -> tuple[int, ...]:
    """Read ``1,3,6`` as clip lengths, in the order given.

    Raises:
        ConfigError: It is not a list of different whole numbers from 1 to 1000.
    """
    try:
        lengths = tuple(int(part) for part in text.split(","))
    except ValueError:
        lengths = ()
    if not lengths or len(set(lengths)) != len(lengths) or not all(1 <= v <= 1000 for v in lengths):
        raise ConfigError(
            f"the clip lengths {text!r} are not a list of different numbers from 1 to 1000",
            "Use for example --clip-lengths 1,3,6",
        )
    return lengths


class HostRunner(Protocol):
    """A runtime on this machine: ONNX Runtime's ``CpuRunner``, or ncnn's."""

    runtime: str

    def load(self) -> None:
        """Load both graphs."""
        ...

    def run(self, role: Role, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph once."""
        ...


def bench_host(
    bundle: ExportBundle,
    *,
    clip_lengths: Sequence[int] = DEFAULT_CLIP_LENGTHS,
    runs: int = DEFAULT_RUNS,
    warmup: int = DEFAULT_WARMUP,
    seconds: float = DEFAULT_SECONDS,
    live_kernels: int | None = None,
    runner: HostRunner | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Measure both graphs on one core of this machine.

    Args:
        bundle: The pair.
        clip_lengths: Every T to measure.
        runs: Keyframes per clip length, at least.
        warmup: Untimed runs of each graph before the first timed one.
        seconds: Length of each clip length's schedule, at least.
        live_kernels: Kernels handed to reuse frames; None means all N of them.
        runner: What runs the graphs; ONNX Runtime by default.
        progress: Told of each keyframe.

    Raises:
        ConfigError: More live kernels than the graphs have, or fewer in a static export; seconds
            without end.
        BundleError: The golden data or a graph cannot be loaded.
        DeviceError: The runtime failed.
    """
    if not math.isfinite(seconds):
        raise ConfigError(f"{seconds} seconds never end", "Give a finite number of seconds")
    n = bundle.config.num_queries
    live = n if live_kernels is None else live_kernels
    axis = bundle.graphs["mask_head"].spec.inputs[1].shape[1]
    if not 1 <= live <= n or (isinstance(axis, int) and live != axis):
        raise ConfigError(
            f"{live} live kernels cannot be passed to this pair",
            f"Use 1 to {n} with a pair exported with --dynamic-kernels",
        )
    golden = load_golden(bundle)
    images = [golden.image(i) for i in range(len(golden.images))]
    runner = runner or CpuRunner(bundle)
    runner.load()
    with pinned_to_one_core() as core:
        before = host_state()
        schedule = _Schedule(runner, images, live)
        for _ in range(warmup):
            schedule.clip(2)
        clips = []
        for length in clip_lengths:
            schedule.reset()
            begin = time.monotonic()
            while len(schedule.keyframes) < runs or time.monotonic() - begin < seconds:
                schedule.clip(length)
                progress(f"bench T={length}", min(len(schedule.keyframes), runs), runs)
            clips.append(schedule.latency(length))
        after = host_state()
    invalid = [
        f"at T={clip.clip_length} the {name} runs spread by {latency.mad / latency.p50:.0%} "
        "(MAD over median): the machine was busy"
        for clip in clips
        for name, latency in (("keyframe", clip.keyframe), ("reuse", clip.reuse))
        if latency is not None and latency.mad > _LARGEST_SPREAD * latency.p50
    ]
    return BenchReport(
        bundle_sha256=bundle.sha256,
        model_id=bundle.model_id,
        input_size=bundle.config.input_size,
        trained=bundle.trained,
        device={"kind": "host", "name": "cpu", **host_facts()},
        emulated=False,
        settings={
            "protocol": "host",
            "clip_lengths": list(clip_lengths),
            "warmup": warmup,
            "runs": runs,
            "seconds": seconds,
            "threads": 1,
            "precision": bundle.precision,
            "core": core,
            "live_kernels": live,
            "runtime": runner.runtime,
        },
        clips=tuple(clips),
        state_before=before,
        state_after=after,
        invalid=tuple(invalid),
        notes=(
            "measured on this host, not on a phone: not comparable with the paper",
            *(["8-bit: not the paper's protocol"] if bundle.precision != "fp32" else []),
        ),
    )


def host_facts() -> dict[str, Any]:
    """What this machine is: processor, system, number of cores."""
    facts: dict[str, Any] = {
        "processor": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                facts["processor"] = value.strip()
                break
    return facts


def host_state() -> Mapping[str, Any]:
    """What may disturb a measurement: load over the last minute, None where it is unknown."""
    try:
        load = float(Path("/proc/loadavg").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        load = None
    return {"load_1min": load}


class _Schedule:
    """Runs clips and keeps every sample."""

    def __init__(self, runner: HostRunner, images: list[np.ndarray], live: int) -> None:
        self._runner = runner
        self._images = images
        self._live = live
        self._next = 0
        self.reset()

    def reset(self) -> None:
        self.keyframes: list[float] = []
        self.reuses: list[float] = []
        self._prepare: list[float] = []

    def clip(self, length: int) -> None:
        outputs = self._timed("frame", {}, self.keyframes)
        kernels = outputs["kernels"]
        live = {"kernels": np.ascontiguousarray(kernels[:, : self._live])}
        for _ in range(length - 1):
            self._timed("mask_head", live, self.reuses)

    def latency(self, length: int) -> ClipLatency:
        return ClipLatency(
            clip_length=length,
            keyframe=Latency(tuple(self.keyframes)),
            reuse=Latency(tuple(self.reuses)) if self.reuses else None,
            prepare_ms=statistics.median(self._prepare),
        )

    def _timed(
        self, role: Role, inputs: dict[str, np.ndarray], samples: list[float]
    ) -> dict[str, np.ndarray]:
        start = time.perf_counter_ns()
        # A buffer of its own for every picture, as a camera gives.
        feeds = {"image": self._images[self._next % len(self._images)].copy(), **inputs}
        self._next += 1
        prepared = time.perf_counter_ns()
        outputs = self._runner.run(role, feeds)
        end = time.perf_counter_ns()
        self._prepare.append((prepared - start) / 1e6)
        samples.append((end - prepared) / 1e6)
        return outputs
