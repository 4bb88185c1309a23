"""``training.svg``: the losses and the held-out AP of a run's log, as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.run_folder import CURVES_FILE, LOG_FILE
from mobileinst_deploy.measure.charts import Series, picture

_LOSSES = ("loss", "focal", "dice", "bce", "objectness", "passed")
_PRECISIONS = ("AP", "AP50", "AP75")


def draw_curves(folder: Path) -> None:
    """Draw the log of a run beside it.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    with (folder / LOG_FILE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    charts = [_series(rows, _LOSSES), _series(rows, _PRECISIONS)]
    text = picture(charts, "iteration", ["loss", "held-out AP"])
    write_atomically(folder / CURVES_FILE, lambda temporary: _write(temporary, text))


def _series(rows: Sequence[dict[str, str]], names: Sequence[str]) -> list[Series]:
    found = []
    for name in names:
        points = [(float(r["iteration"]), float(r[name])) for r in rows if r.get(name)]
        if points:
            found.append(Series(name, [x for x, _ in points], [y for _, y in points]))
    return found


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
