"""Latencies and executed instructions as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mobileinst_deploy.measure import latency_table as latency
from mobileinst_deploy.measure.instructions import InstructionRecord
from mobileinst_deploy.measure.record import LatencyRecord


def latency_table(records: Sequence[LatencyRecord]) -> Table:
    """Latency on host and phones: a row for each device and clip length."""
    content = latency.latency_table(records)
    table = Table(
        title=content.title,
        caption="\n".join(content.captions),
        caption_justify="left",
    )
    for name in content.columns:
        left = name == "device"
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in content.rows:
        table.add_row(*row)
    return table


def instructions_table(record: InstructionRecord) -> Table:
    """Executed ARM instructions per graph."""
    table = Table(
        title=f"Executed ARM instructions of {record.model_id} by {record.runtime}",
        caption=record.note,
    )
    for name in ("graph", "instructions", "of the keyframe", "equal runs"):
        table.add_column(name, justify="left" if name == "graph" else "right")
    for role, value in record.instructions.items():
        name = role if role == "frame" else f"{role}, {record.live_kernels} kernels"
        share = f"{value / record.instructions['frame']:.3f}"
        table.add_row(name, f"{value:,}", share, str(record.equal_runs[role]))
    return table
