"""doctor: what is missing to run on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, show, styled
from mobileinst_deploy.cli.options import Json, RuntimeName
from mobileinst_deploy.core.errors import DeviceError

if TYPE_CHECKING:
    from rich.table import Table

    from mobileinst_deploy.workflows.doctor import Finding


def doctor(
    device: Annotated[
        str | None, typer.Option(help="Look only at what adb or qemu needs; default: both.")
    ] = None,
    runtime: RuntimeName = "onnxruntime",
    json: Json = False,
) -> None:
    """Say what is missing to run on a device, each with the command that mends it."""
    from mobileinst_deploy.workflows.doctor import doctor as work

    findings = work(device, runtime)
    show(_table(findings), json=json)
    broken = [f for f in findings if not f.ok]
    failure = None
    if broken:
        failure = DeviceError(
            f"{len(broken)} of {len(findings)} things are not as a device needs them",
            "Mend them with what the table says, from the top down",
            where=broken[0].name,
        )
    found = [finding.to_dict() for finding in findings]
    answer({"ok": not broken, "findings": found}, failure, json=json)


def _table(findings: Sequence[Finding]) -> Table:
    """What is there, what is missing, and how to mend it."""
    from rich.table import Table

    table = Table(title="What running on a device needs")
    for name in ("", "what", "found", "mend it with"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        mark = styled("ok", "green") if finding.ok else styled("missing", "bold red")
        table.add_row(mark, finding.name, finding.detail, finding.mend)
    return table
