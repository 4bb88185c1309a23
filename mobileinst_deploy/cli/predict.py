"""predict: what a model finds in a data set, as a file for the data set's server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.cli.options import Association, Json, Upright


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CHECKPOINT", help="An exported pair, a run, a checkpoint, or a zoo id."
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Form of the annotations: coco or ytvis.")],
    images: Annotated[Path, typer.Option(help="Folder of the pictures.")],
    annotations: Annotated[
        Path, typer.Option(help="JSON file that lists them and the classes; it need not annotate.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file: results.json or results.json.zip.")
    ],
    clip_length: Annotated[
        str | None,
        typer.Option(
            "-T", "--clip-length", help="With ytvis: frames per keyframe, or auto; default: 3."
        ),
    ] = None,
    association: Association = "remembering",
    upright: Upright = False,
    device: Annotated[
        str, typer.Option(help="cpu; for a checkpoint also cuda or another PyTorch device.")
    ] = "cpu",
    json: Json = False,
) -> None:
    """Write what a model finds in a data set as COCO's and YouTube-VIS's servers take it.

    Interrupted work goes on where it was when it is run again.
    """
    from mobileinst_deploy.workflows.predict import predict as work

    with progress_bar() as progress:
        done = work(
            model,
            output,
            dataset=dataset,
            images=images,
            annotations=annotations,
            clip_length=clip_length,
            association=association,
            upright=upright,
            device=device,
            progress=progress,
        )
    what = "pictures" if done.schedule is None else f"clips at T = {done.schedule}"
    show(f"{done.path}: {done.results} results in {done.items} {what}", json=json)
    if done.lacking:
        names = ", ".join(done.lacking[:8])
        note(f"Left out: {len(done.lacking)} classes that the file does not list, such as {names}.")
    if not done.trained:
        note("Random weights: these results mean nothing but that it runs.", "bold")
    answer(done.to_dict(), json=json)
