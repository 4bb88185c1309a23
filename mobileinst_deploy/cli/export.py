"""export: from a checkpoint to a verified pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, next_steps, note, progress_bar, show
from mobileinst_deploy.cli.optimize import tell_rewrites
from mobileinst_deploy.cli.options import Json, Network, Weights
from mobileinst_deploy.cli.verify import tell_verdict
from mobileinst_deploy.core.config import ContextReuse


def export(
    model: Annotated[
        str | None,
        typer.Argument(help="Id of the zoo or a peer, a model.toml, a run, or a checkpoint."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write; of a run by default its own pair/."),
    ] = None,
    network: Network = None,
    weights: Weights = None,
    size: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH in multiples of 64, of others 32; default: the model's."),
    ] = None,
    reuse_context: Annotated[
        ContextReuse | None,
        typer.Option(
            help="From which map on reuse frames take over what their keyframe computed; default: "
            "the model's."
        ),
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set.")] = 17,
    dynamic_kernels: Annotated[
        bool,
        typer.Option(
            "--dynamic-kernels/--static-kernels",
            help="Let the mask-head graph take any number of kernels, or exactly N.",
        ),
    ] = True,
    simplify: Annotated[
        bool, typer.Option("--simplify/--no-simplify", help="Fold constants and shapes.")
    ] = True,
    optimize: Annotated[
        bool,
        typer.Option("--optimize", help="Also rewrite both graphs, as `mobileinst optimize` does."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Climb the parity ladder afterwards.")
    ] = True,
    upright: Annotated[
        bool,
        typer.Option(
            "--upright",
            help="Also export a pair for upright pictures, into OUTPUT-upright; run chooses.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Export a model as a frame graph and a mask-head graph, and prove them equal to PyTorch."""
    from mobileinst_deploy.core.config import parse_size
    from mobileinst_deploy.core.needs import CELL
    from mobileinst_deploy.workflows.export import export as work

    with progress_bar() as progress:
        exported = work(
            model,
            output,
            network=network,
            weights=weights,
            size=None if size is None else parse_size(size, multiple=CELL),
            reuse_context=reuse_context,
            opset=opset,
            dynamic_kernels=dynamic_kernels,
            simplify=simplify,
            optimize=optimize,
            verify=verify,
            upright=upright,
            progress=progress,
        )
    failure = None
    for made in filter(None, (exported, exported.upright)):
        tell_rewrites(made.rewritten, json=json)
        pair = made.pair
        show(f"Exported {pair.model_id} ({pair.weights_note}) to {pair.folder}", json=json)
        if made.verified is not None:
            tell_verdict(made.verified, json=json)
            failure = failure or made.verified.failure
    if failure is None:
        folder = exported.pair.folder
        next_steps(("run", folder, "VIDEO -o out"), ("bench", folder), json=json)
    if exported.note:
        note(f"Note: {exported.note}.")
    answer(exported.to_dict(), failure, json=json)
