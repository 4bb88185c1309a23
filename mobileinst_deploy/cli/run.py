"""run: segment and track a clip, and see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.options import DeviceName, Json, PairFolder, RuntimeName, Serial
from mobileinst_deploy.cli.runners import pair_runner

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
    device: DeviceName = "cpu",
    serial: Serial = None,
    runtime: RuntimeName = "onnxruntime",
    json: Json = False,
) -> None:
    """Segment and track a clip: an overlay video, tracks.json, and where the time went.

    Keyframes have a green border, reuse frames a red one. Ctrl-C keeps what is there so far.
    """
    from mobileinst_deploy.core.bundle import load_bundle
    from mobileinst_deploy.core.schedule import parse_schedule
    from mobileinst_deploy.core.tracker import TrackSettings
    from mobileinst_deploy.media.video import open_clip
    from mobileinst_deploy.workflows.run import run_clip

    bundle = load_bundle(folder)
    schedule = parse_schedule(clip_length)
    settings = TrackSettings(score=score)
    clip = open_clip(source)
    if not bundle.trained:
        people.print(f"[yellow]{bundle.weights_note}[/]")
    with pair_runner(bundle, device, serial, runtime) as runner, progress_bar() as progress:
        report = run_clip(bundle, runner, clip, output, schedule, settings, progress=progress)
    _show(report)
    for note in report.notes:
        people.print(f"Note: the overlay is {note}.", markup=False)
    for kind, path in report.files.items():
        people.print(f"{kind:>8}  {path}", markup=False, soft_wrap=True)
    if json:
        print_json(report.to_dict())


def _show(report: RunReport) -> None:
    """Frames, tracks and the share of time per stage."""
    from rich.markup import escape
    from rich.table import Table

    found = ", ".join(f"{count} {name}" for name, count in report.tracks.items()) or "none"
    speed = report.frames_per_second
    pace = "emulated, so not a speed" if speed is None else f"{speed:.2f} frames/s end to end"
    people.print(
        f"[bold]{escape(report.source)}[/], {report.model_id} on {report.device} by "
        f"{report.runtime}, T = {report.schedule}: {report.frames} frames, {report.keyframes} of "
        "them keyframes; "
        f"{pace}",
        soft_wrap=True,
    )
    people.print(f"Tracks: {found}", markup=False, soft_wrap=True)
    table = Table()
    for name in ("stage", "ms per frame", "share"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    total = sum(report.seconds.values())
    for stage, seconds in report.seconds.items():
        table.add_row(
            stage, f"{1000 * seconds / report.frames:.2f}", f"{100 * seconds / total:.1f} %"
        )
    people.print(table)
