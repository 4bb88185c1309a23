"""history: what was measured on this machine so far."""

from __future__ import annotations

from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, show
from mobileinst_deploy.cli.options import Json


def history(
    device: Annotated[
        str | None, typer.Option(help="Only of this device: a phone's serial, or cpu.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    json: Json = False,
) -> None:
    """List every measurement that bench kept: when, where, of what, and how it came out.

    A name from this list is what report takes; so is its beginning, if no other begins like that.
    """
    from mobileinst_deploy.cli.tables import history_table
    from mobileinst_deploy.workflows.history import read_history

    found = read_history(device=device, model=model)
    if json:
        entries = [{"name": e.name, **e.record.to_dict()} for e in found.entries]
        for entry in entries:
            # Samples are in the files; a list of all of them is no list.
            entry.pop("schedules", None)
            entry.pop("emulated_schedules", None)
        answer({"entries": entries, "damaged": list(found.damaged), "left_out": found.left_out})
    elif found.entries or found.damaged:
        show(history_table(found))
    else:
        show("Nothing was measured yet: `mobileinst bench DIR` begins the history.")
