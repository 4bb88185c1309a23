"""How long each frame of a run spends in each stage: ``timings.csv``."""

from __future__ import annotations

import csv
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.files import write_atomically

#: What a frame passes, in order; ``timings.csv`` has a column for each, in ms.
#: It is the time that a frame holds up the next one. On this machine another thread reads and
#: prepares: ``read`` is the wait for it, and ``prepare`` is nothing.
#: ``transfer`` is the way to a device and back, shared among a batch's frames.
STAGES = ("read", "prepare", "transfer", "graphs", "track", "masks", "draw", "write")


class StageClock:
    """Time per stage and frame; a stage within a stage stops the outer one's clock.

    Attributes:
        wall_seconds: From the beginning to the last frame, or to :meth:`stop`.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self.wall_seconds = 0.0
        self._now = dict.fromkeys(STAGES, 0.0)
        self._open: list[str] = []
        self._mark = 0.0
        self._rows = array("d")
        self._width = 3 + len(STAGES)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self._now[self._open[-1]] += now - self._mark
        self._mark = now

    def add(self, name: str, seconds: float) -> None:
        """Time that a device says it took."""
        self._now[name] += seconds

    def next_frame(self, shown_at: Fraction, since_keyframe: int, instances: int) -> None:
        """End a frame's row: when it is shown in s, how old its kernels are, what was found."""
        self._rows.extend((float(shown_at), since_keyframe, instances))
        self._rows.extend(1000 * self._now[stage] for stage in STAGES)
        self._now = dict.fromkeys(STAGES, 0.0)
        self.stop()

    def stop(self) -> None:
        """Note how long the whole has taken by now."""
        self.wall_seconds = time.perf_counter() - self._begun

    def _table(self) -> np.ndarray:
        return np.array(self._rows).reshape(-1, self._width)

    def totals(self) -> dict[str, float]:
        """Seconds of each stage, all frames together."""
        sums = self._table()[:, 3:].sum(axis=0) / 1000
        return dict(zip(STAGES, sums.tolist(), strict=True))

    def write(self, path: Path, untold: Sequence[str]) -> None:
        """Write ``timings.csv``, a row for each frame; the cells of some stages stay empty."""

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(
                    ["frame", "seconds", "since_keyframe", "instances"]
                    + [f"{stage}_ms" for stage in STAGES]
                )
                for index, row in enumerate(self._table().tolist()):
                    times = [f"{ms:.3f}" for ms in row[3:]]
                    for stage in untold:
                        times[STAGES.index(stage)] = ""
                    rows.writerow([index, f"{row[0]:.6f}", int(row[1]), int(row[2]), *times])

        write_atomically(path, write)
