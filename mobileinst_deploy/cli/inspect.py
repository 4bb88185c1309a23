"""inspect: what is in a pair or in an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, in_giga, show
from mobileinst_deploy.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from mobileinst_deploy.pair.onnx_file import GraphSummary


def inspect(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="An exported pair or a graph.")],
    json: Json = False,
) -> None:
    """Show what is in a pair or an ONNX file: inputs, outputs, operators, parameters, MACs."""
    from mobileinst_deploy.workflows.inspect import inspect as work

    inspected = work(path)
    if json:
        answer(inspected.to_dict())
        return
    if (pair := inspected.pair) is not None:
        show(f"{pair.model_id}, pair {pair.pair_id}: {pair.weights_note}")
    show(*(_table(name, summary) for name, summary in inspected.graphs.items()))


def _table(name: str, summary: GraphSummary) -> Table:
    """A graph's description."""
    from rich.table import Table

    table = Table(title=name, show_header=False)
    table.add_column("what", style="bold")
    table.add_column("value", overflow="fold")
    for kind, tensors in (("input", summary.inputs), ("output", summary.outputs)):
        for tensor in tensors:
            shape = " x ".join(map(str, tensor.shape))
            table.add_row(kind, f"{tensor.name}: {tensor.dtype} {shape}")
    assumed = ", ".join(f"{axis} = {length}" for axis, length in summary.free_axes.items())
    macs = "unknown: its shapes are not fixed" if summary.macs is None else in_giga(summary.macs)
    table.add_row("MACs", macs + (f" at {assumed}" if assumed else ""))
    few = summary.parameters < 1e5
    count = f"{summary.parameters:,}" if few else f"{summary.parameters / 1e6:.2f} M"
    table.add_row("parameters", count)
    size = f"{summary.bytes / 1e3:.1f} kB" if few else f"{summary.bytes / 1e6:.1f} MB"
    table.add_row("size", f"{size}, opset {summary.opset}")
    table.add_row("operators", ", ".join(f"{op} {n}" for op, n in summary.ops.items()))
    for key, value in summary.metadata.items():
        if key != "classes":
            table.add_row(key, value)
    return table
