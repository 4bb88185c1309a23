"""What people see and what machines read, and the one way in which both are written.

Results go to stdout; with ``--json`` the JSON document does, and people's tables go to stderr, as
notes, progress and errors always do. Text that comes from files and devices is never taken for
markup, and its control characters are shown as escapes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from rich.traceback import Traceback

from mobileinst_deploy.cli import process
from mobileinst_deploy.core.errors import MobileInstError, OutputError
from mobileinst_deploy.core.progress import Progress
from mobileinst_deploy.core.text import shown

_LOG_WIDTH = 110
#: Away from a terminal, seconds between two lines of progress.
_LINE_EVERY_S = 10.0


class Printer(Console):
    """A rich console for text that may say anything.

    rich itself honours NO_COLOR and drops colour and motion away from a terminal. A log is not 80
    columns wide: there, tables take the room that they need.
    """

    def __init__(self, *, stderr: bool) -> None:
        stream = sys.stderr if stderr else sys.stdout
        width = None if stream is not None and stream.isatty() else _LOG_WIDTH
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See rich; whatever was handed over, no control character of it gets through."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = segment.text.split("\n")
                safe = "\n".join(shown(line, sys.maxsize) for line in lines)
                yield Segment(safe, segment.style)

    def on_broken_pipe(self) -> None:
        """Nobody reads any more: what is left to say goes nowhere, and the work goes on."""
        process.silence(self.file)


#: Notes, progress and errors.
notes = Printer(stderr=True)
#: What the command was run for.
results = Printer(stderr=False)


class _Answered:
    """Whether the JSON document has been written: there is one for each command."""

    yes = False


def show(*parts: RenderableType, json: bool = False) -> None:
    """Show a result to people: tables, and sentences that are never broken into lines.

    Raises:
        OutputError: stdout cannot take it.
    """
    with _written("stdout" if not json else None):
        for part in parts:
            (notes if json else results).print(part, soft_wrap=isinstance(part, str | Text))


def note(text: str, style: str | None = None) -> None:
    """Tell people one sentence beside the result."""
    with _written(None):
        notes.print(Text(shown(text), style=style or ""), soft_wrap=True)


def next_steps(*commands: tuple[str, Path] | tuple[str, Path, str], json: bool) -> None:
    """What to type now: each command with the folder that it takes, and what follows."""
    for name, folder, *rest in commands:
        words = ["mobileinst", name, quote(str(folder)), *filter(None, rest)]
        show(f"Next: {shown(' '.join(words))}", json=json)


def styled(text: str, style: str) -> Text:
    """Text in a style, for a table's cell."""
    return Text(text, style=style)


def in_giga(macs: int) -> str:
    """Multiply-accumulates for people."""
    return f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M"


def answer(
    document: Mapping[str, Any], failure: MobileInstError | None = None, *, json: bool = True
) -> None:
    """Give machines the JSON document when they asked for it, then fail when there is a failure.

    Raises:
        MobileInstError: The failure; the document then has it under ``error``.
        OutputError: stdout cannot take the document.
    """
    if json:
        _Answered.yes = True
        whole = document if failure is None else {**document, **error_document(failure)}
        try:
            _write_json(whole)
        except OutputError:
            if failure is None:
                raise
    if failure is not None:
        raise failure


def error_document(error: MobileInstError) -> dict[str, Any]:
    """A failure as JSON."""
    told = {
        "cause": error.cause,
        "next_step": error.next_step,
        "exit_code": error.exit_code,
        "where": error.where,
    }
    return {"error": told}


@contextmanager
def one_answer() -> Iterator[None]:
    """The time of one command, for :func:`fail`."""
    _Answered.yes = False
    yield


def fail(error: MobileInstError, *, json: bool) -> None:
    """Tell people and, when they asked for it and have no document yet, machines of a failure."""
    with _written(None):
        for start, told in (("error: ", error.cause), ("", error.next_step)):
            sentence = shown(told)
            end = "" if sentence.endswith(("?", "!")) else "."
            notes.print(Text.assemble((start, "bold red"), sentence, end), soft_wrap=True)
    if json:
        answer_failure(error)


def answer_failure(error: MobileInstError) -> None:
    """Give machines a failure as JSON, unless the command has given them its document already."""
    if not _Answered.yes:
        with suppress(OutputError):
            _write_json(error_document(error))


def _write_json(document: Mapping[str, Any]) -> None:
    with _written("stdout"):
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        sys.stdout.flush()


@contextmanager
def _written(stream: str | None) -> Iterator[None]:
    """What becomes of a stream that refuses: a reader who is gone is no failure, a full disk is."""
    try:
        yield
    except BrokenPipeError:
        process.silence(sys.stdout)
    except OSError as error:
        if stream is None:  # a terminal that is gone has nobody to tell
            return
        process.silence(sys.stdout)
        raise OutputError(
            f"{stream} cannot be written: {error.strerror or error}",
            "Free some space there, or let it lead elsewhere",
            where=stream,
        ) from error


def note_traceback(error: BaseException) -> None:
    """Show where an error came from."""
    with _written(None):
        kind = type(error)
        notes.print(Traceback.from_exception(kind, error, error.__traceback__, suppress=(typer,)))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress: a bar with an ETA on a terminal, elsewhere a line every ten seconds."""
    process.working()
    if not notes.is_terminal:
        yield _lines()
        return
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def report(label: str, done: float, total: float | None) -> None:
        if label not in tasks:
            tasks[label] = bars.add_task(label, total=total)
        bars.update(tasks[label], completed=done, total=total)

    with bars:
        yield report


def _lines() -> Progress:
    begun = told = time.monotonic()

    def report(label: str, done: float, total: float | None) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told < _LINE_EVERY_S:
            return
        told = now
        of = "" if total is None else f" of {total:g}"
        note(f"{label}: {done:g}{of}, {now - begun:.0f} s")

    return report
