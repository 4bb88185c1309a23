"""How long training waits for its data, and how many workers that asks for."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator
from contextlib import closing
from typing import Literal, TypeVar

#: Steps that ``auto`` measures, after the first, which is slow for other reasons.
_MEASURED = 12
#: Workers beyond those that just keep up: pictures are not all alike.
_SPARE = 1.2

_T = TypeVar("_T")


class Pace:
    """Times the steps of one process.

    Args:
        workers: As the recipe has them, a number or ``auto``.
        processes: That train together on this machine.

    Attributes:
        workers: Processes that read ahead.
    """

    def __init__(self, workers: int | Literal["auto"], processes: int) -> None:
        self._auto = workers == "auto"
        self.workers = 1 if workers == "auto" else int(workers)
        self._most = max((os.cpu_count() or 1) // processes, 1)
        self._steps = 0
        self._since = self._auto_since = time.perf_counter()
        self._waited = self._auto_waited = 0.0
        self._begun, self._all_waited = self._since, 0.0

    def timed(self, stream: Generator[_T]) -> Generator[_T]:
        """A stream, noting how long each item was waited for; it is closed with this one."""
        with closing(stream):
            while True:
                began = time.perf_counter()
                try:
                    item = next(stream)
                except StopIteration:
                    return
                now = time.perf_counter()
                self._waited += now - began
                self._auto_waited += now - began
                self._all_waited += now - began
                self._steps += 1
                if self._steps == 1:
                    self._auto_since, self._auto_waited = now, 0.0
                yield item

    @property
    def waited_share(self) -> float:
        """The share of all time so far that was spent waiting, 0 to 1."""
        return min(self._all_waited / max(time.perf_counter() - self._begun, 1e-9), 1.0)

    def waiting(self) -> float:
        """The share of the time since the last call, 0 to 1, that was spent waiting."""
        now = time.perf_counter()
        share = self._waited / max(now - self._since, 1e-9)
        self._since, self._waited = now, 0.0
        return min(share, 1.0)

    def changes(self) -> bool:
        """Whether the measurement is done and asks for another number of workers."""
        if not self._auto or self._steps < _MEASURED:
            return False
        self._auto = False
        seconds = time.perf_counter() - self._auto_since
        wanted = enough_workers(self.workers, seconds, self._auto_waited, self._most)
        changed, self.workers = wanted != self.workers, wanted
        return changed


def enough_workers(workers: int, seconds: float, waited: float, most: int) -> int:
    """How many workers keep up, from what was measured with some.

    Args:
        workers: With which it was measured, at least 1.
        seconds: That the steps took.
        waited: Of these, waiting for data.
        most: Cores that a process can have.

    Returns:
        From 1 to ``most``. Where nothing was waited for, the number that it was measured with.
    """
    if waited <= 0.02 * seconds:
        return min(workers, most)
    busy = max(seconds - waited, 1e-9)
    return max(1, min(most, math.ceil(_SPARE * workers * seconds / busy)))
