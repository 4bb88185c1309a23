"""Latency records as one table, for host and phones; whoever shows it only draws the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobileinst_deploy.core.text import ms_text, shown
from mobileinst_deploy.measure.record import LatencyRecord
from mobileinst_deploy.measure.samples import ClipLatency


@dataclass(frozen=True)
class LatencyTable:
    """A row for each device and T.

    Attributes:
        title: What was measured, and how.
        columns: Their heads, the device first.
        rows: A cell for each column.
        captions: What a reader must know of each device, a line each.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    captions: tuple[str, ...]


def latency_table(records: Sequence[LatencyRecord]) -> LatencyTable:
    """The table of records of one measurement; an emulated device's times are not in it."""
    first = records[0]
    headline = "mean" if first.protocol.statistic == "mean" else "p50"
    size = "x".join(map(str, first.pair.input_size))
    kernels = first.conditions.live_kernels
    title = (
        f"{first.pair.model_id} {size} {first.pair.form}, protocol {first.protocol.name}, "
        f"{first.runtime}, one thread, {first.pair.precision}, {kernels} kernels in reuse frames"
    )
    with_paper = any(record.paper for record in records)
    columns = ["device", "core", "T", "ms a frame", f"keyframe {headline}", "p90", "min", "MAD"]
    columns += [f"reuse {headline}", "reuse p90", "worst", "runs"]
    columns += ["paper"] if with_paper else []
    rows = []
    for record in records:
        core = record.conditions.core
        for clip in record.clips:
            row = [record.device.serial, "any" if core is None else str(core)]
            row += [str(clip.clip_length), *_times(record, clip), _runs(clip)]
            row += [_paper(record, clip.clip_length)] if with_paper else []
            rows.append(tuple(row))
    # Much of it is what a device says of itself.
    return LatencyTable(
        shown(title),
        tuple(columns),
        tuple(tuple(map(shown, row)) for row in rows),
        tuple(shown(line, 2000) for record in records for line in _caption(record)),
    )


def _times(record: LatencyRecord, clip: ClipLatency) -> tuple[str, ...]:
    if record.emulated:
        return ("emulated", *[""] * 7)
    keyframe, reuse = clip.keyframe, clip.reuse
    values = [clip.amortised_ms, keyframe.headline, keyframe.p90, keyframe.min, keyframe.mad]
    reused = ["-", "-"] if reuse is None else [ms_text(reuse.headline), ms_text(reuse.p90)]
    return (*map(ms_text, values), *reused, ms_text(clip.worst_ms))


def _runs(clip: ClipLatency) -> str:
    reuse = 0 if clip.reuse is None else len(clip.reuse.samples_ms)
    return f"{len(clip.keyframe.samples_ms)}+{reuse}"


def _paper(record: LatencyRecord, clip_length: int) -> str:
    return next((f"{row.ms:g}" for row in record.paper if row.clip_length == clip_length), "-")


def _caption(record: LatencyRecord) -> list[str]:
    lines = [f"INVALID: {reason}" for reason in record.invalid] + list(record.notes)
    if record.emulated:
        lines.insert(0, "EMULATED: its times are those of an emulator and are not shown")
    name = f"{record.device.serial} ({record.device.soc or 'unknown SoC'})"
    return [f"{name}: {line[0].upper()}{line[1:]}." for line in lines]
