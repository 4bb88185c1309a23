"""evaluate: average precision of a checkpoint or an exported pair on annotated data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.options import Json
from mobileinst_deploy.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

DATASETS = ("coco", "ytvis")


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CHECKPOINT", help="An exported pair, a checkpoint, or a zoo id."
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Form of the annotations: coco or ytvis.")],
    images: Annotated[Path, typer.Option(help="Folder of the pictures.")],
    annotations: Annotated[Path, typer.Option(help="Their JSON file.")],
    clip_lengths: Annotated[
        str,
        typer.Option(
            "-T", "--clip-lengths", help="With ytvis: frames per keyframe, one or more, or auto."
        ),
    ] = "1,3,6",
    device: Annotated[
        str, typer.Option(help="cpu; for a checkpoint also cuda or another PyTorch device.")
    ] = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for eval.json; default: the model's own."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure mask AP on COCO's pictures, or track AP on YouTube-VIS's clips at each T.

    An interrupted evaluation goes on where it was when it is run again.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"there is no dataset form {dataset!r}", f"Use {' or '.join(DATASETS)}")

    from platformdirs import user_cache_path

    from mobileinst_deploy.core.schedule import parse_schedule
    from mobileinst_deploy.workflows.evaluate import (
        EVAL_FILE,
        evaluate_clips,
        evaluate_pictures,
        save_report,
    )
    from mobileinst_deploy.workflows.subject import open_subject

    schedules = list(dict.fromkeys(clip_lengths.split(",")))
    for schedule in schedules:
        parse_schedule(schedule)
    subject = open_subject(model, device)
    folder = output or subject.folder
    journals = user_cache_path("mobileinst") / "evaluate"
    pictures, clips = None, {}
    with progress_bar() as progress:
        if dataset == "coco":
            pictures = evaluate_pictures(
                subject, images, annotations, journals=journals, progress=progress
            )
        else:
            for schedule in schedules:
                clips[schedule] = evaluate_clips(
                    subject, images, annotations, schedule, journals=journals, progress=progress
                )
    document = save_report(subject, folder, pictures, clips)
    measured: dict[str, dict[str, Any]] = (
        {"pictures": document["pictures"]}
        if dataset == "coco"
        else {f"T = {name}": document["clips"][name] for name in clips}
    )
    people.print(_table(document, measured))
    first = next(iter(measured.values()))
    for reason, count in first["skipped"].items():
        people.print(f"Left out: {count} {reason}.")
    if not subject.trained:
        people.print("[bold]Random weights[/]: these figures mean nothing but that it runs.")
    people.print(f"Written to {folder / EVAL_FILE}", soft_wrap=True)
    if json:
        print_json(document)


def _table(document: dict[str, Any], measured: dict[str, dict[str, Any]]) -> Table:
    from rich.table import Table

    from mobileinst_deploy.measure.average_precision import PICTURE_METRICS

    first = next(iter(measured.values()))
    names = [name for name in PICTURE_METRICS if name in first]
    items = "pictures" if "pictures" in measured else "clips"
    height, width = document["input_size"]
    table = Table(
        title=f"{document['model_id']} ({document['runtime']}, {height}x{width}) on "
        f"{first['annotations']}: {first['items']} {items}, {first['objects']} objects"
    )
    table.add_column("")
    table.add_column("keyframes", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    for title, block in measured.items():
        values = ("-" if block[n] is None else f"{block[n]:.3f}" for n in names)
        table.add_row(title, f"{block['keyframes']}/{block['frames']}", *values)
    return table
