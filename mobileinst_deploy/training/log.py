"""``training.csv``: one row each time losses are logged or the model is evaluated."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.text import whole

COLUMNS = (
    "iteration",
    "stage",
    "lr",
    "loss",
    "focal",
    "dice",
    "bce",
    "objectness",
    "passed",
    "semantic",
    "association",
    "gradient",
    "samples_per_s",
    "waiting",
    "AP",
    "AP50",
    "AP75",
)
#: Of a log that is read again; a run of a million iterations writes less.
_MOST_CHARACTERS = 1 << 28
_LONGEST_ROW = 10_000


class TrainingLog:
    """The log of a run. Rows that a resumed run will write again are dropped.

    Args:
        path: The CSV file.
        iteration: The iteration that the run begins or resumes at; later rows are dropped.
        write: Whether this process writes it; the others only read how far it went.

    Raises:
        OutputError: It cannot be read or written.
    """

    def __init__(self, path: Path, iteration: int, *, write: bool = True) -> None:
        self.path = path
        rows = [] if iteration == 0 else _rows_up_to(path, iteration)
        #: Whether the evaluation at the iteration that the run resumes at is among its rows.
        self.evaluated = any(int(r["iteration"]) == iteration and not r["loss"] for r in rows)
        if not write:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, lambda temporary: _write(temporary, text.getvalue()))

    def row(
        self,
        iteration: int,
        stage: str,
        lr: float,
        losses: Mapping[str, float],
        samples_per_s: float,
        waiting: float,
    ) -> None:
        """Note the losses of an iteration; they are written with all their digits.

        Args:
            iteration: Of the run.
            stage: Its kind.
            lr: Learning rate.
            losses: By name.
            samples_per_s: Of all processes, since this session began.
            waiting: The share of the time since the last row that was spent waiting for data.
        """
        self._append(
            {
                "iteration": iteration,
                "stage": stage,
                "lr": f"{lr:.3g}",
                **losses,
                "samples_per_s": f"{samples_per_s:.1f}",
                "waiting": f"{waiting:.3f}",
            }
        )

    def evaluation(self, iteration: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Note what the held-out data gave."""
        known = {k: f"{v:.4f}" for k, v in metrics.items() if k in COLUMNS}
        self._append({"iteration": iteration, "stage": stage, **known})

    def _append(self, row: Mapping[str, object]) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n").writerow(row)


def _rows_up_to(path: Path, iteration: int) -> list[dict[str, str]]:
    """What is whole of an earlier session's log; a log that was damaged loses its damaged rows."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            text = file.read(_MOST_CHARACTERS)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be read: {error.strerror}", "Make it readable, or move it away"
        ) from error
    # A row is one line: what is open at a line's end is damage and must not swallow the next ones.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    lines = [line for line in lines if len(line) < _LONGEST_ROW and line.isprintable()]
    rows = [row for line in lines[1:] for row in csv.DictReader([lines[0], line])]
    kept = [r for r in rows if _is_whole(r, iteration)]
    # An older version's rows lack what later ones note.
    return [{"loss": "", **r} for r in kept]


def _is_whole(row: Mapping[str, str | None], iteration: int) -> bool:
    """Whether a row is one of a log, up to an iteration."""
    if not set(row) <= set(COLUMNS) or whole(row.get("iteration") or "", 0, iteration) is None:
        return False
    return all(_is_number(v or "0") for name, v in row.items() if name != "stage")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
