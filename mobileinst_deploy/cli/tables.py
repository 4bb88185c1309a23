"""Figures and latencies as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mobileinst_deploy.core.records import BenchReport


def latency_table(report: BenchReport) -> Table:
    """Amortised latency for each clip length; an emulated device's times are not shown."""
    device = f"{report.device.get('name')} ({report.device.get('processor', '')})"
    height, width = report.input_size
    table = Table(
        title=f"{report.model_id} {height}x{width} on {device}",
        caption=". ".join((*report.notes, *(f"INVALID: {reason}" for reason in report.invalid))),
    )
    table.add_column("T", justify="right")
    for name in ("amortised", "keyframe p50", "p90", "MAD", "reuse p50", "p90", "worst", "runs"):
        table.add_column(name, justify="right")
    for clip in report.clips:
        cells = [str(clip.clip_length)]
        if report.emulated:
            cells += ["emulated"] * 7
        else:
            reuse = clip.reuse
            cells += [
                f"{clip.amortised_ms:.2f} ms",
                *(f"{v:.2f}" for v in (clip.keyframe.p50, clip.keyframe.p90, clip.keyframe.mad)),
                f"{reuse.p50:.2f}" if reuse is not None else "-",
                f"{reuse.p90:.2f}" if reuse is not None else "-",
                f"{clip.worst_ms:.2f}",
            ]
        runs = len(clip.keyframe.samples_ms)
        cells.append(f"{runs}+{len(clip.reuse.samples_ms) if clip.reuse is not None else 0}")
        table.add_row(*cells)
    return table


def instructions_table(document: Mapping[str, Any]) -> Table:
    """Executed ARM instructions per graph."""
    table = Table(
        title=f"Executed ARM instructions of {document['model_id']}", caption=document["note"]
    )
    for name in ("graph", "instructions", "of the keyframe", "equal runs"):
        table.add_column(name, justify="left" if name == "graph" else "right")
    counts = document["instructions"]
    for role, value in counts.items():
        name = role if role == "frame" else f"{role}, {document['live_kernels']} kernels"
        share = f"{value / counts['frame']:.3f}"
        table.add_row(name, f"{value:,}", share, str(document["equal_runs"][role]))
    return table


def in_giga(macs: int) -> str:
    """Multiply-accumulates for people."""
    return f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M"
