"""devices: what adb sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from mobileinst_deploy.cli.console import answer, show, styled
from mobileinst_deploy.cli.options import Json
from mobileinst_deploy.core.errors import DeviceError

if TYPE_CHECKING:
    from rich.table import Table

    from mobileinst_deploy.measure.device import Core, DeviceState
    from mobileinst_deploy.phone.overview import Overview

_UNKNOWN = "unknown"


def devices(json: Json = False) -> None:
    """List every adb device: state, chip, cores, temperature, comparable with the paper or not.

    Exit 3 when there is none.
    """
    from mobileinst_deploy.workflows.device import devices as work

    rows = work()
    failure = None
    if not rows:
        failure = DeviceError(
            "adb sees no device",
            "Connect a phone with USB debugging on, or `adb connect HOST:PORT`",
        )
    elif not json:
        show(_table(rows))
    answer({"devices": [row.to_dict() for row in rows]}, failure, json=json)


def _table(rows: Sequence[Overview]) -> Table:
    """What each device is, and whether its latencies could stand beside the paper's."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Devices", show_lines=True)
    for name in ("serial", "device", "Android, ABI", "cores", "temperature", "with the paper"):
        table.add_column(name, overflow="fold")
    for row in rows:
        if row.facts is None or row.state is None:
            why = Text.assemble((row.listed.state, "red"), f": it {row.problem or ''}")
            table.add_row(row.listed.serial, why, "", "", "", row.next_step or "")
            continue
        facts, state = row.facts, row.state
        names = [v for v in (facts.manufacturer, facts.model) if v]
        comparable = facts.comparable
        table.add_row(
            row.listed.serial,
            f"{' '.join(names) or _UNKNOWN}, {facts.soc or 'SoC ' + _UNKNOWN}",
            f"{facts.android or _UNKNOWN}, {facts.abis[0] if facts.abis else _UNKNOWN}",
            _clusters(state.cores),
            _warmth(state),
            styled("comparable", "green") if comparable is None else f"not: {comparable}",
        )
    return table


def _clusters(cores: Sequence[Core]) -> str:
    """One line per cluster, such as ``4 x 300-1901 MHz at 1901``."""
    told = []
    for (low, high), group in groupby(cores, key=lambda c: (c.min_khz, c.max_khz)):
        members = list(group)
        clocks = "clock unknown" if high is None else f"{(low or 0) // 1000}-{high // 1000} MHz"
        now = [c.now_khz for c in members if c.now_khz is not None]
        at = f" at {max(now) // 1000}" if now else ""
        offline = sum(not c.online for c in members)
        told.append(f"{len(members)} x {clocks}{at}" + (f" ({offline} offline)" if offline else ""))
    return "\n".join(told) or _UNKNOWN


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
