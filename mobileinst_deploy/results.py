"""Records that stages return and files keep, each with its JSON form."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.errors import OutputError


@dataclass(frozen=True)
class Latency:
    """Every timed run of one graph, so that any statistic can be recomputed.

    Attributes:
        samples_ms: One entry per run in the order they ran, in milliseconds, inference alone.
    """

    samples_ms: tuple[float, ...]

    @property
    def min(self) -> float:
        """Fastest run, ms."""
        return min(self.samples_ms)

    @property
    def p50(self) -> float:
        """Median, ms: the headline."""
        return statistics.median(self.samples_ms)

    @property
    def p90(self) -> float:
        """90th percentile by linear interpolation, ms."""
        ordered = sorted(self.samples_ms)
        position = 0.9 * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median, ms: the spread."""
        middle = self.p50
        return statistics.median(abs(s - middle) for s in self.samples_ms)

    def to_dict(self) -> dict[str, Any]:
        """Statistics beside the raw samples."""
        return {
            "runs": len(self.samples_ms),
            "min_ms": self.min,
            "p50_ms": self.p50,
            "p90_ms": self.p90,
            "mad_ms": self.mad,
            "samples_ms": list(self.samples_ms),
        }
