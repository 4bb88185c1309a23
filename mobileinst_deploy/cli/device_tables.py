"""Phones as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mobileinst_deploy.core.records import BenchReport, ClipLatency


def phones_table(reports: Sequence[BenchReport]) -> Table:
    """A row for each phone and clip length; an emulated phone's times are not shown."""
    first = reports[0]
    mean = first.settings["statistic"] == "mean"
    size = "x".join(map(str, first.input_size))
    table = Table(
        title=f"{first.model_id} {size}, protocol {first.settings['protocol']}, "
        f"{first.settings['runtime']}, one thread, {first.settings['precision']}",
        caption="\n".join(_caption(report) for report in reports),
        caption_justify="left",
    )
    table.add_column("phone", overflow="fold")
    headline = "mean" if mean else "p50"
    names = ["core", "T", "ms a frame", f"keyframe {headline}", "p90", "min", "MAD"]
    for name in (*names, f"reuse {headline}", "worst", "runs", "paper"):
        table.add_column(name, justify="right")
    for report in reports:
        core = report.settings["core"]
        for clip in report.clips:
            table.add_row(
                str(report.device["serial"]),
                "any" if core is None else str(core),
                str(clip.clip_length),
                *_times(report, clip, mean),
                _runs(clip),
                _paper(report, clip.clip_length),
            )
    return table


def _times(report: BenchReport, clip: ClipLatency, mean: bool) -> list[str]:
    if report.emulated:
        return ["emulated", *[""] * 6]
    keyframe, reuse = clip.keyframe, clip.reuse
    if mean:
        rest = 0.0 if reuse is None else (clip.clip_length - 1) * reuse.mean
        amortised = (keyframe.mean + rest) / clip.clip_length
    else:
        amortised = clip.amortised_ms
    cells = [f"{amortised:.1f}", f"{keyframe.mean if mean else keyframe.p50:.1f}"]
    cells += [f"{v:.1f}" for v in (keyframe.p90, keyframe.min, keyframe.mad)]
    cells.append("-" if reuse is None else f"{reuse.mean if mean else reuse.p50:.1f}")
    return [*cells, f"{clip.worst_ms:.1f}"]


def _runs(clip: ClipLatency) -> str:
    reuse = 0 if clip.reuse is None else len(clip.reuse.samples_ms)
    return f"{len(clip.keyframe.samples_ms)}+{reuse}"


def _paper(report: BenchReport, clip_length: int) -> str:
    for row in report.settings["paper"]:
        if row["clip_length"] == clip_length:
            return f"{row['ms']:g}"
    return "-"


def _caption(report: BenchReport) -> str:
    sentences = [f"INVALID: {reason}" for reason in report.invalid] + list(report.notes)
    if report.emulated:
        sentences.insert(0, "EMULATED: its times are those of an emulator and are not shown")
    device = report.device
    return f"{device['serial']} ({device['processor']}): {'. '.join(sentences)}."
