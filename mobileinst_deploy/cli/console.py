"""What people see (stderr) and what machines read (stdout)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from mobileinst_deploy.core.progress import Progress

_LOG_WIDTH = 110

#: Everything for people goes here, so that stdout carries only what a machine asked for.
#: rich itself honours NO_COLOR and drops colour and motion when this is not a terminal.
#: A log is not 80 columns wide: there, tables take the room that they need.
people = Console(
    stderr=True, highlight=False, width=None if sys.stderr.isatty() else _LOG_WIDTH, soft_wrap=False
)


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress with an ETA on a terminal; show nothing elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress as RichProgress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=people,
        transient=True,
        disable=not people.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def report(label: str, done: float, total: float | None) -> None:
        if label not in tasks:
            tasks[label] = bars.add_task(label, total=total)
        bars.update(tasks[label], completed=done, total=total)

    with bars:
        yield report
