"""models: the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, in_giga, show, styled
from mobileinst_deploy.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from mobileinst_deploy.workflows.models import ZooRow


def models(
    peers: Annotated[
        bool, typer.Option("--peers", help="List the other networks of the paper's Tables 1 and 2.")
    ] = False,
    json: Json = False,
) -> None:
    """List the model zoo: what each model is, costs, and whether it has trained weights."""
    from mobileinst_deploy.workflows.models import models as list_zoo

    if peers:
        _tell_peers(json=json)
        return
    rows = list_zoo()
    if json:
        answer({"models": [row.to_dict() for row in rows]})
    else:
        show(_table(rows))


def _table(rows: Sequence[ZooRow]) -> Table:
    from rich.table import Table

    table = Table(
        title="The zoo: models that come along",
        caption="`mobileinst export ID -o DIR` makes a pair of one; MACs are of a keyframe",
    )
    for name in ("id", "backbone", "input", "classes", "parameters", "MACs", "weights"):
        right = name in ("classes", "parameters", "MACs")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row.id,
            row.backbone,
            "x".join(map(str, row.input_size)),
            str(row.classes),
            f"{row.parameters / 1e6:.2f} M",
            in_giga(row.macs),
            styled("trained", "green") if row.trained_weights else styled("none: random", "yellow"),
        )
    return table


def _tell_peers(*, json: bool) -> None:
    from rich.table import Table

    from mobileinst_deploy.network.peers.catalogue import NOT_BUILT
    from mobileinst_deploy.workflows.models import peers as list_peers

    rows = list_peers()
    if json:
        not_built = {name: each.to_dict() for name, each in NOT_BUILT.items()}
        answer({"peers": [row.to_dict() for row in rows], "not_built": not_built})
        return
    table = Table(
        title="Peers of the paper's tables",
        caption="MACs are counted here. ms and AP are the paper's: one core of a Snapdragon 778G, "
        "TNN; COCO test-dev, or YouTube-VIS 2019. Nothing of the paper's was measured here.",
    )
    for name in ("id", "input", "parameters", "MACs", "of a reuse frame", "paper ms", "paper AP"):
        table.add_column(name, justify="left" if name == "id" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.id,
            "x".join(map(str, row.input_size)),
            f"{row.parameters / 1e6:.2f} M",
            in_giga(row.macs),
            in_giga(row.reuse_macs),
            "-" if row.paper_ms is None else f"{row.paper_ms:g}",
            "-" if row.paper_ap is None else f"{row.paper_ap:g}",
        )
    show(table)
    left_out = Table(title="In the paper's tables and not built")
    for name in ("id", "backbone", "AP", "on", "published by", "why it is not built"):
        left_out.add_column(name, overflow="fold")
    for name, each in NOT_BUILT.items():
        left_out.add_row(name, each.backbone, f"{each.ap:g}", each.on, each.source, each.why)
    show(left_out)
