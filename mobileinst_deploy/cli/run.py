"""run: segment and track a clip, and see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.cli.options import (
    Association,
    DeviceName,
    Json,
    PairFolder,
    RuntimeName,
    Serial,
)
from mobileinst_deploy.core.text import counted, ms_text

if TYPE_CHECKING:
    from mobileinst_deploy.core.records import RunReport


def run(
    folder: PairFolder,
    source: Annotated[
        str,
        typer.Argument(
            metavar="CLIP", help="A video, a picture, a folder of pictures, or a camera's number."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    clip_length: Annotated[
        str,
        typer.Option(
            "-T", "--clip-length", help="A keyframe every T frames; auto: when the scene asks."
        ),
    ] = "3",
    score: Annotated[float, typer.Option(help="Lowest score of an instance, 0 to 1.")] = 0.3,
    association: Association = "remembering",
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames per second of a raw stream or a folder of pictures (there by default 25)."
        ),
    ] = None,
    device: DeviceName = "cpu",
    serial: Serial = None,
    runtime: RuntimeName = "onnxruntime",
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Draw and write what was found.")
    ] = True,
    json: Json = False,
) -> None:
    """Segment and track a clip: an overlay video, tracks.json, and where the time went.

    Keyframes have a green border, reuse frames a red one. Ctrl-C keeps what is there so far.
    """
    from mobileinst_deploy.core.schedule import parse_rate
    from mobileinst_deploy.workflows.run import run as work

    with progress_bar() as progress:
        report = work(
            folder,
            source,
            output,
            clip_length=clip_length,
            score=score,
            association=association,
            fps=None if fps is None else parse_rate(fps),
            device=device,
            serial=serial,
            runtime=runtime,
            overlay=overlay,
            progress=progress,
        )
    if not report.trained:
        note("RANDOM weights: the speed is real, the masks mean nothing.", "yellow")
    _show(report, json)
    for text in report.notes:
        note(f"Note: the overlay is {text}.")
    for kind, path in report.files.items():
        show(f"{kind:>8}  {path}", json=json)
    answer(report.to_dict(), json=json)


def _show(report: RunReport, json: bool) -> None:
    """Frames, tracks and the share of time per stage."""
    from rich.table import Table
    from rich.text import Text

    found = ", ".join(f"{count} {name}" for name, count in report.tracks.items()) or "none"
    speed = report.frames_per_second
    pace = "emulated, so not a speed" if speed is None else f"{speed:.2f} frames/s end to end"
    what = Text.assemble(
        (report.source, "bold"),
        f", {report.model_id} on {report.device} by {report.runtime}, T = {report.schedule}: "
        f"{counted(report.frames, 'frame')}, {counted(report.keyframes, 'keyframe')}; {pace}",
    )
    table = Table()
    for name in ("stage", "ms per frame", "share"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    total = sum(report.seconds.values())
    for stage, seconds in report.seconds.items():
        # A stage that this run had none of: the way to a phone, drawing with --no-overlay.
        if seconds:
            per_frame = ms_text(1000 * seconds / report.frames)
            table.add_row(stage, per_frame, f"{100 * seconds / total:.1f} %")
    show(what, f"Tracks: {found}", table, json=json)
