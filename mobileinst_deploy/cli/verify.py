"""verify: is an exported pair the network that PyTorch trained?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show, styled
from mobileinst_deploy.cli.options import (
    DeviceName,
    Json,
    Network,
    PairFolder,
    Report,
    RuntimeName,
    Serial,
    Weights,
    only_with,
)

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from mobileinst_deploy.core.records import ParityReport
    from mobileinst_deploy.workflows.verify import Verified


def verify(
    folder: PairFolder,
    weights: Weights = None,
    network: Network = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Your own pictures, as one clip: a keyframe, then reuse frames."),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="Also follow a video or a folder of pictures.")
    ] = None,
    clip_length: Annotated[
        str | None,
        typer.Option("-T", "--clip-length", help="With --clip: a keyframe every T frames, or 3."),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="With --clip: only so many of its first frames."),
    ] = None,
    association: Annotated[
        str | None,
        typer.Option(help="With --clip: remembering, or consecutive, the paper's association."),
    ] = None,
    device: DeviceName = "cpu",
    serial: Serial = None,
    runtime: RuntimeName = "onnxruntime",
    locate: Annotated[
        bool, typer.Option("--locate", help="On failure, name the first node that differs.")
    ] = False,
    report: Report = None,
    json: Json = False,
) -> None:
    """Prove an exported pair equal to PyTorch, rung by rung; exit 1 when anything is off."""
    from mobileinst_deploy.workflows.verify import verify as work

    only_with(
        "--clip",
        clip,
        {"--clip-length": clip_length, "--association": association, "--frames": frames},
    )
    with progress_bar() as progress:
        verified = work(
            folder,
            weights=weights,
            network=network,
            images=image or (),
            clip=clip,
            clip_length=clip_length or "3",
            association=association or "remembering",
            frames=frames,
            device=device,
            serial=serial,
            runtime=runtime,
            locate=locate,
            report=report,
            progress=progress,
        )
    tell_verdict(verified, json=json)
    if (found := verified.located) is not None:
        where = f"{found.graph}, picture {found.picture}"
        show(f"The first difference is in {where}: {found.divergence}", json=json)
    elif verified.not_located is not None:
        show(f"{verified.not_located[0].upper()}{verified.not_located[1:]}.", json=json)
    document = verified.report.to_dict()
    if locate and verified.failure is not None:
        document["first_divergence"] = verified.first_divergence
    answer(document, verified.failure, json=json)


def tell_verdict(verified: Verified, *, json: bool) -> None:
    """The ladder as a table, and where it is kept when that is not where it belongs."""
    show(_table(verified.report), json=json)
    if verified.kept.note is not None:
        note(f"Note: {verified.kept.note}.", "yellow")


def _table(report: ParityReport) -> Table:
    """The ladder and the tensors' differences."""
    from rich.table import Table

    table = Table(
        title=f"Parity of {report.model_id} on {report.device} by {report.runtime}",
        caption=("Every rung holds. " if report.passed else "")
        + f"Reference: {report.reference}. "
        + ("" if report.trained else "RANDOM weights: numbers are compared, masks mean nothing. ")
        + (f"NOTE: {report.caveat}." if report.caveat else ""),
    )
    table.add_column("rung")
    table.add_column("")
    table.add_column("what was found", overflow="fold")
    for check in report.checks:
        table.add_row(check.rung, _mark(check.passed), check.detail)
    for tensor in report.tensors:
        table.add_row(
            f"  {tensor.graph}",
            _mark(tensor.passed),
            f"{tensor.tensor}: max abs {tensor.max_abs:.2e}, max rel {tensor.max_rel:.2e}, "
            f"cosine {tensor.cosine:.8f}",
        )
    return table


def _mark(passed: bool) -> Text:
    return styled("ok", "green") if passed else styled("FAIL", "bold red")
