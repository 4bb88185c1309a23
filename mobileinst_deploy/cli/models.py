"""models: the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mobileinst_deploy.cli.console import answer, in_giga, show, styled
from mobileinst_deploy.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from mobileinst_deploy.workflows.models import ZooRow


def models(json: Json = False) -> None:
    """List the model zoo: what each model is, costs, and whether it has trained weights."""
    from mobileinst_deploy.workflows.models import models as list_zoo

    rows = list_zoo()
    if json:
        answer({"models": [row.to_dict() for row in rows]})
    else:
        show(_table(rows))


def _table(rows: Sequence[ZooRow]) -> Table:
    from rich.table import Table

    table = Table(title="The zoo")
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
