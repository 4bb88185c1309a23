"""device prepare and clean: what goes to a phone."""

from __future__ import annotations

from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, progress_bar, show
from mobileinst_deploy.cli.help import PlainCommand, PlainGroup
from mobileinst_deploy.cli.options import Every, Json, RuntimeName, Serials
from mobileinst_deploy.core.text import counted

device_app = typer.Typer(
    cls=PlainGroup,
    name="device",
    help="What goes to a phone: assemble it, remove it.",
    no_args_is_help=True,
)


@device_app.command(cls=PlainCommand)
def prepare(
    runtime: RuntimeName = "onnxruntime",
    force: Annotated[
        bool, typer.Option("--force", help="Fetch and build everything again.")
    ] = False,
    json: Json = False,
) -> None:
    """Assemble the bundle that goes to a device: runner, runtime, glibc; then work offline."""
    from mobileinst_deploy.workflows.device import prepare as work

    with progress_bar() as progress:
        bundle = work(runtime, force=force, progress=progress)
    size = sum(f.bytes for f in bundle.files)
    show(
        f"The bundle is in {bundle.folder}: {counted(len(bundle.files), 'file')},"
        f" {size / 1e6:.1f} MB, {bundle.runtime_name}, sha256 {bundle.sha256[:12]}.",
        json=json,
    )
    document = {
        "folder": str(bundle.folder),
        "sha256": bundle.sha256,
        "bytes": size,
        "runtime": bundle.runtime_name,
        "compiler": bundle.compiler,
    }
    answer(document, json=json)


@device_app.command(cls=PlainCommand)
def clean(
    serial: Serials = None,
    every: Every = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also remove the assembled bundle from this machine.")
    ] = False,
    json: Json = False,
) -> None:
    """End every runner on a phone and remove all that was pushed to it."""
    from mobileinst_deploy.workflows.device import clean as work, clean_cache

    here = clean_cache() if cache else None
    if here is not None:
        show(f"Freed {here / 1e6:.1f} MB on this machine.", json=json)
    phones = {} if cache and not serial and not every else work(serial or (), every=every)
    for name, freed in phones.items():
        show(f"Freed {freed / 1e6:.1f} MB on {name}.", json=json)
    answer({"freed_bytes": {"here": here, "phones": dict(phones)}}, json=json)
