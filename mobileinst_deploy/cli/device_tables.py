"""Phones as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.markup import escape
from rich.table import Table

from mobileinst_deploy.core.records import BenchReport, ClipLatency
from mobileinst_deploy.phone.overview import Overview
from mobileinst_deploy.phone.state import Core, PhoneState
from mobileinst_deploy.workflows.doctor import Finding

_UNKNOWN = "unknown"


def devices_table(rows: Sequence[Overview]) -> Table:
    """What each device is, and whether its latencies could stand beside the paper's."""
    table = Table(title="Devices", show_lines=True)
    for name in ("serial", "device", "Android, ABI", "cores", "temperature", "with the paper"):
        table.add_column(name, overflow="fold")
    for row in rows:
        if row.facts is None or row.state is None:
            why = f"[red]{escape(row.listed.state)}[/]: it {escape(row.problem or '')}"
            table.add_row(escape(row.listed.serial), why, "", "", "", escape(row.next_step or ""))
            continue
        facts, state = row.facts, row.state
        names = [v for v in (facts.manufacturer, facts.model) if v]
        comparable = facts.comparable
        table.add_row(
            escape(row.listed.serial),
            escape(f"{' '.join(names) or _UNKNOWN}, {facts.soc or 'SoC ' + _UNKNOWN}"),
            escape(f"{facts.android or _UNKNOWN}, {facts.abis[0] if facts.abis else _UNKNOWN}"),
            escape(_clusters(state.cores)),
            escape(_warmth(state)),
            "[green]comparable[/]" if comparable is None else f"not: {escape(comparable)}",
        )
    return table


def doctor_table(findings: Sequence[Finding]) -> Table:
    """What is there, what is missing, and how to mend it."""
    table = Table(title="What running on a device needs")
    for name in ("", "what", "found", "mend it with"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[bold red]missing[/]"
        table.add_row(mark, escape(finding.name), escape(finding.detail), escape(finding.mend))
    return table


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
                escape(str(report.device["serial"])),
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
    cells = [f"[bold]{amortised:.1f}[/]", f"{keyframe.mean if mean else keyframe.p50:.1f}"]
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
    return escape(f"{device['serial']} ({device['processor']}): {'. '.join(sentences)}.")


def _clusters(cores: Sequence[Core]) -> str:
    """One line per cluster, such as ``4 x 300-1901 MHz at 1901``."""
    shown = []
    for (low, high), group in groupby(cores, key=lambda c: (c.min_khz, c.max_khz)):
        members = list(group)
        clocks = "clock unknown" if high is None else f"{(low or 0) // 1000}-{high // 1000} MHz"
        now = [c.now_khz for c in members if c.now_khz is not None]
        at = f" at {max(now) // 1000}" if now else ""
        offline = sum(not c.online for c in members)
        shown.append(
            f"{len(members)} x {clocks}{at}" + (f" ({offline} offline)" if offline else "")
        )
    return "\n".join(shown) or _UNKNOWN


def _warmth(state: PhoneState) -> str:
    parts = [
        f"{name} {value:.1f} °C"
        for name, value in (("battery", state.battery_celsius), ("skin", state.skin_celsius))
        if value is not None
    ]
    hottest = max((state.zones_celsius or {}).values(), default=None)
    if hottest is not None:
        parts.append(f"hottest zone {hottest:.1f} °C")
    return "\n".join(parts) or _UNKNOWN
