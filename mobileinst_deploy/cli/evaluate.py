"""evaluate: average precision of a checkpoint or an exported pair on annotated data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.cli.options import Association, Json, Report, RuntimeName, Serial, Upright
from mobileinst_deploy.core.text import tallied

if TYPE_CHECKING:
    from rich.table import Table

    from mobileinst_deploy.workflows.evaluate import Evaluated


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CHECKPOINT|RESULTS",
            help="An exported pair, a run, a checkpoint, a zoo id, or a file of results.",
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Form of the annotations: coco or ytvis.")],
    annotations: Annotated[Path, typer.Option(help="The pictures' JSON file.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; a file of results needs none.")
    ] = None,
    clip_lengths: Annotated[
        str | None,
        typer.Option(
            "-T",
            "--clip-lengths",
            help="With ytvis: frames per keyframe, one or more, or auto; default: 1,3,6.",
        ),
    ] = None,
    association: Association = "remembering",
    upright: Upright = False,
    device: Annotated[
        str,
        typer.Option(help="cpu; a pair also: adb or qemu; a checkpoint also: cuda, mps."),
    ] = "cpu",
    runtime: RuntimeName = "onnxruntime",
    serial: Serial = None,
    report: Report = None,
    json: Json = False,
) -> None:
    """Measure mask AP on COCO's pictures, or track AP on YouTube-VIS's clips at each T.

    An interrupted evaluation goes on where it was when it is run again.
    """
    from mobileinst_deploy.workflows.evaluate import evaluate as work

    with progress_bar() as progress:
        done = work(
            model,
            dataset=dataset,
            images=images,
            annotations=annotations,
            clip_lengths=() if clip_lengths is None else clip_lengths.split(","),
            association=association,
            upright=upright,
            device=device,
            runtime=runtime,
            serial=serial,
            report=report,
            progress=progress,
        )
    show(_table(done), json=json)
    first = next(iter(done.measured.values()))
    for reason, count in first.skipped.items():
        note(f"Left out: {tallied(count, reason)}, such as {first.examples[reason]}.")
    if done.report.trained is False:
        note("Random weights: these figures mean nothing but that it runs.", "bold")
    if done.report.caveat is not None:
        note(f"Note: {done.report.caveat}.", "yellow")
    note(f"Note: {done.kept.note}." if done.kept.note else f"Written to {done.kept.path}")
    answer(done.document, json=json)


def _table(done: Evaluated) -> Table:
    from rich.table import Table

    from mobileinst_deploy.measure.average_precision import PICTURE_METRICS

    first = next(iter(done.measured.values()))
    names = [name for name in PICTURE_METRICS if name in first.metrics]
    items = "pictures" if "pictures" in done.measured else "clips"
    size = done.report.input_size
    at = "" if size is None else f", {size[0]}x{size[1]}"
    table = Table(
        title=f"{done.report.model_id} ({done.report.runtime}{at}) on "
        f"{first.annotations}: {first.items} {items}, {first.objects} objects"
    )
    table.add_column("")
    table.add_column("keyframes", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    for title, block in done.measured.items():
        values = (block.metrics[name] for name in names)
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(title, f"{block.keyframes}/{block.frames}", *cells)
    return table
