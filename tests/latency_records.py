"""Latency records made by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.measure.protocol import PROTOCOLS
from mobileinst_deploy.measure.record import Conditions, LatencyRecord, PairFacts
from mobileinst_deploy.measure.samples import Sample, Schedule


def record_of(
    times: Mapping[int, tuple[float, float | None]], *, noise: float = 0.01, seed: int = 0
) -> LatencyRecord:
    """A valid record of the tiny model on this machine.

    Args:
        times: Median keyframe and reuse frame by T, ms.
        noise: Relative spread.
        seed: Of the noise.
    """
    draw = np.random.default_rng(seed)
    schedules = []
    for length, (keyframe, reuse) in times.items():
        samples, now = [], 0.0
        for clip in range(60):
            for at in range(length):
                ms = (reuse if at else keyframe) * (1 + noise * float(draw.standard_normal()))
                role = "mask_head" if at else "frame"
                samples.append(Sample(role, clip, now, 0.1, ms, 1, 2_400_000))
                now += ms + 0.1
        schedules.append(Schedule(length, now, tuple(samples)))
    return LatencyRecord(
        mobileinst="0.2.0",
        measured_at="2026-01-31T12:00:00+00:00",
        pair=PairFacts("0" * 64, "0" * 16, "tiny", (64, 128), True, "plain", "fp32", 5),
        device=DeviceFacts("host", "cpu", None, None, "a processor", None, ("x86_64",), False),
        protocol=PROTOCOLS["sd778g"],
        conditions=Conditions(tuple(times), 5, 1, "auto", 1, (1,), None, 0.0),
        runtime="onnxruntime 1.32.0",
        runner_bundle_sha256=None,
        load_ms={"frame": 1.0, "mask_head": 1.0},
        peak_memory_kib=None,
        schedules=tuple(schedules),
        state_before=DeviceState(load_1min=0.1),
        state_after=DeviceState(load_1min=0.2),
    )
