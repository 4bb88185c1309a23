"""Batches, read ahead by processes that leave signals to the run and end with it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import cv2
import torch
from torch.utils.data import DataLoader

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.training.config import LossConfig
from mobileinst_deploy.training.data import Batch, Collate, Samples

#: Of the folder's name, bytes: a socket's may have 103, of which Python adds
#: ``/pymp-XXXXXXXX/listener-XXXXXXXX``.
_LONGEST_TEMPORARY = 103 - 32
#: So long after SIGTERM a worker ends by itself, s.
_GRACE_S = 20


def batches(
    samples: Samples,
    losses: LossConfig,
    batch: int,
    first: int,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
) -> Generator[Batch]:
    """The batches of one process, from a given one onwards.

    Closing it ends the workers.

    Args:
        samples: Of the stage.
        losses: Their mask stride.
        batch: Samples of one process in one batch.
        first: Number of batches to leave out because an earlier run has seen them.
        process: This process, from 0.
        processes: How many there are; they share the sequence of samples between them.
        workers: Processes that read ahead for this one; 0 reads when a batch is asked for.
    """
    order = _Order(len(samples), batch, first, process, processes)
    if workers:
        # Before the fork: OpenCV cannot end its threads in a child that did not inherit them.
        cv2.setNumThreads(1)
    loader = DataLoader(
        samples,
        batch_sampler=order,
        collate_fn=Collate(losses.mask_stride),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_run if workers else None,
    )
    read = iter(loader)
    try:
        yield from read
    finally:
        if workers:
            # An exception on its way out keeps the iterator alive, whose end would be theirs.
            read._shutdown_workers()  # type: ignore[attr-defined]


def require_room_for_sockets() -> None:
    """Refuse a folder for temporary files in which no socket can be: batches would never come.

    Raises:
        ConfigError: Its name is too long.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_TEMPORARY:
        raise ConfigError(
            f"{folder} is too long a name for processes that read data: it has "
            f"{len(os.fsencode(folder))} bytes, and {_LONGEST_TEMPORARY} are the most",
            "Let TMPDIR name another folder, or set data.workers to 0",
        )


def _leave_signals_to_the_run(_worker: int) -> None:
    """What ends a whole group of processes must not take a worker from under the run.

    A time limit, a job scheduler and a closed terminal signal all of them. The run then ends its
    workers itself, by word. One that it did not reach ends a while after SIGTERM.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # Windows lacks SIGHUP, and SIGALRM below.
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))


@dataclass(frozen=True)
class _Order:
    """Indices of the samples of each batch of one process, in order."""

    length: int
    batch: int
    first: int
    process: int
    processes: int

    def __len__(self) -> int:
        return self.length // (self.batch * self.processes) - self.first

    def __iter__(self) -> Iterator[list[int]]:
        step = self.batch * self.processes
        for i in range(self.first, self.length // step):
            start = i * step + self.process * self.batch
            yield list(range(start, start + self.batch))
