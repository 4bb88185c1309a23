"""What a pair costs: to be shown before and after whatever is done to it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.runtimes.onnxruntime import open_session

_TIMED_RUNS = 15


@dataclass(frozen=True)
class Price:
    """What a pair costs and what it gives, before or after.

    Attributes:
        bytes: Size of each graph's file.
        host_ms: Median processor time of each graph on one thread of this machine, in milliseconds.
    """

    bytes: Mapping[Role, int]
    host_ms: Mapping[Role, float]


def measure_price(bundle: ExportBundle) -> Price:
    """Time both graphs on the first golden picture and weigh their files."""
    golden = load_golden(bundle)
    times: dict[Role, float] = {}
    for role in ROLES:
        session = open_session(bundle.graphs[role].onnx)
        feed = golden.inputs(role, 0)
        samples = []
        for _ in range(_TIMED_RUNS):
            started = time.process_time()
            session.run(None, feed)
            samples.append((time.process_time() - started) * 1e3)
        times[role] = statistics.median(samples)
    return Price({role: bundle.graphs[role].bytes for role in ROLES}, times)
