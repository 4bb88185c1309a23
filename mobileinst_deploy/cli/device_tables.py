"""Phones as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.markup import escape
from rich.table import Table

from mobileinst_deploy.measure.device import Core, DeviceState
from mobileinst_deploy.phone.overview import Overview
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


def _warmth(state: DeviceState) -> str:
    parts = [
        f"{name} {value:.1f} °C"
        for name, value in (("battery", state.battery_celsius), ("skin", state.skin_celsius))
        if value is not None
    ]
    hottest = max((state.zones_celsius or {}).values(), default=None)
    if hottest is not None:
        parts.append(f"hottest zone {hottest:.1f} °C")
    return "\n".join(parts) or _UNKNOWN
