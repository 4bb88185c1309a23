"""The paper's Figure 1 of what was compared: AP over latency, or over what is known instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import require_writable, write_atomically
from mobileinst_deploy.measure.charts import LEAST_AP_SPAN, Point, alone, scatter
from mobileinst_deploy.workflows.compare import Comparison
from mobileinst_deploy.workflows.kept import Precision, names_of_sets


def figure(found: Comparison) -> str:
    """Figure 1 as an SVG file: AP over latency on a phone, else over what is known instead.

    Raises:
        ConfigError: No entry was evaluated, or not all on the same set.
    """
    known = [row for row in found.rows if row.precision is not None]
    check_plottable([row.precision for row in found.rows])
    on_phone = found.device.startswith("adb:") and not found.emulated
    counted = [row for row in known if row.instructions is not None]
    if not on_phone and len(counted) == len(known):
        label = "million ARM instructions of a keyframe, counted under qemu: not a latency"
        xs = [row.instructions["frame"] / 1e6 for row in known if row.instructions is not None]
    elif found.device == "qemu" or found.emulated:
        raise ConfigError(
            "there is no latency to draw, and not every pair's instructions were counted",
            "Compare with --device qemu first",
        )
    else:
        first = [row.record.clips[0] for row in known if row.record is not None]
        where = "" if on_phone else ", on this computer: no phone"
        label = f"ms a frame at T = {first[0].clip_length}{where}"
        xs = [clip.amortised_ms for clip in first]
    points = [
        Point(row.entry.name, x, 100 * row.precision.ap)
        for row, x in zip(known, xs, strict=True)
        if row.precision is not None
    ]
    on = next(row.precision.on for row in known if row.precision is not None)
    return alone(scatter(points, label, f"AP on {on}, %", least_span=LEAST_AP_SPAN))


def check_plottable(precisions: Sequence[Precision | None]) -> None:
    """Refuse a plot that nobody could read, before anything is measured.

    Raises:
        ConfigError: No entry was evaluated, or not all on the same set.
    """
    sets = sorted(names_of_sets(each for each in precisions if each is not None).values())
    if not sets:
        raise ConfigError(
            "none of these pairs was evaluated, so there is no AP to draw",
            "Run `mobileinst evaluate` of each of them first",
        )
    if len(sets) > 1:
        raise ConfigError(
            f"these pairs were evaluated on different sets: {', '.join(sets)}",
            "Evaluate all of them on one set",
        )


def write_plot(found: Comparison, path: Path) -> None:
    """Write Figure 1.

    Raises:
        ConfigError: There is nothing to draw.
        OutputError: It cannot be written.
    """
    text = figure(found)
    write_atomically(path, lambda temporary: _put(temporary, text))


def left_out(found: Comparison) -> tuple[str, ...]:
    """Names of the entries that are not in the plot, as they were not evaluated."""
    return tuple(row.entry.name for row in found.rows if row.precision is None)


def check_plot(path: Path) -> None:
    """Find out before anything is measured whether a plot can be written.

    Raises:
        ConfigError: Its name does not say that it is an SVG.
        OutputError: It cannot be written.
    """
    if path.suffix != ".svg":
        raise ConfigError(f"the plot {path} is written as SVG", "Give it a name that ends in .svg")
    require_writable(path)


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
