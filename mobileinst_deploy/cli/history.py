"""history: what was measured on this machine so far."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mobileinst_deploy.cli.console import answer, note, show
from mobileinst_deploy.cli.options import Json
from mobileinst_deploy.core.text import counted


def history(
    device: Annotated[
        str | None, typer.Option(help="Only of this device: a phone's serial, or cpu.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|DIR",
            help="First take over what another machine measured: a latency.json, what bench --json "
            "printed, or a folder of them; may be given several times.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List every measurement that bench kept: when, where, of what, and how it came out.

    A name from this list is what report takes; so is its beginning, if no other begins like that.
    """
    from mobileinst_deploy.cli.tables import history_table
    from mobileinst_deploy.workflows.history import merge as take_over, read_history

    taken = None if merge is None else take_over(merge)
    if taken is not None:
        note(f"Taken over: {counted(taken.added, 'measurement')}; known before: {taken.known}.")
        for why in taken.refused:
            note(f"Left out: {why}.", "yellow")
    found = read_history(device=device, model=model)
    # Samples are in the files; a list of all of them is no list.
    left = ("schedules", "emulated_schedules")
    entries = [
        {"name": e.name, **{k: v for k, v in e.record.to_dict().items() if k not in left}}
        for e in found.entries
    ]
    if found.entries or found.damaged:
        show(history_table(found), json=json)
    else:
        note("Nothing was measured yet: `mobileinst bench DIR` begins the history.")
    document: dict[str, Any] = {
        "entries": entries,
        "damaged": list(found.damaged),
        "left_out": found.left_out,
    }
    if taken is not None:
        document["merged"] = asdict(taken)
    answer(document, json=json)
