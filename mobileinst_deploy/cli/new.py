"""new: a run for data of one's own."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, next_steps, note, show
from mobileinst_deploy.cli.options import Json


def new(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run to begin.")],
    annotations: Annotated[Path, typer.Option(help="JSON file of what to train on.")],
    images: Annotated[Path, typer.Option(help="Folder of its pictures.")],
    like: Annotated[str, typer.Option(help="Model of the zoo whose network to take.")],
    validation_annotations: Annotated[
        Path | None, typer.Option(help="JSON file of what to evaluate on meanwhile.")
    ] = None,
    validation_images: Annotated[
        Path | None, typer.Option(help="Folder of its pictures; default: that of --images.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Form of the annotations: coco or ytvis.")] = "coco",
    json: Json = False,
) -> None:
    """Begin a run: a model.toml with the annotations' classes, a train.toml that fits them."""
    from mobileinst_deploy.core.zoo import zoo_ids
    from mobileinst_deploy.workflows.new import new as work

    made = work(
        folder,
        annotations=annotations,
        images=images,
        like=like,
        validation_annotations=validation_annotations,
        validation_images=validation_images,
        dataset=dataset,
    )
    counts = ", ".join(f"{count} {name}" for name, count in made.objects.items())
    show(
        f"{made.folder}: like {made.like}, for {made.items} pictures or clips: {counts}", json=json
    )
    for line in made.left_out:
        note(f"Left out: {line}.")
    # An id that is not the zoo's names nothing.
    weights = made.like if made.like in zoo_ids() else made.weights
    start = "" if made.weights is None else f"--weights {quote(str(weights))}"
    next_steps(("train", made.folder, start), json=json)
    answer(made.to_dict(), json=json)
