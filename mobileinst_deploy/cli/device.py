"""devices, doctor, device prepare and clean."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.options import Json, RuntimeName
from mobileinst_deploy.core.errors import (
    EXIT_NO_DEVICE,
    ConfigError,
)
from mobileinst_deploy.runtimes import known_runtime

Serials = Annotated[
    list[str] | None, typer.Option("--serial", help="Which phone; may be given several times.")
]
Every = Annotated[bool, typer.Option("--all", help="Every phone that adb sees.")]

device_app = typer.Typer(
    name="device", help="What goes to a phone: assemble it, remove it.", no_args_is_help=True
)


def devices(json: Json = False) -> None:
    """List every adb device: state, chip, cores, temperature, comparable with the paper or not."""
    from mobileinst_deploy.cli.device_tables import devices_table
    from mobileinst_deploy.phone.adb import list_devices
    from mobileinst_deploy.phone.overview import overview

    rows = overview(list_devices())
    if json:
        print_json({"devices": [row.to_dict() for row in rows]})
    elif rows:
        people.print(devices_table(rows))
    else:
        people.print(
            "adb sees no device. Connect a phone with USB debugging on, or `adb connect HOST:PORT`."
        )


def doctor(
    device: Annotated[
        str | None, typer.Option(help="Look only at what adb or qemu needs; default: both.")
    ] = None,
    runtime: RuntimeName = "onnxruntime",
    json: Json = False,
) -> None:
    """Say what is missing to run on a device, each with the command that mends it."""
    from mobileinst_deploy.cli.device_tables import doctor_table
    from mobileinst_deploy.phone.device_bundle import Runtime
    from mobileinst_deploy.workflows.doctor import examine

    if device not in (None, "adb", "qemu"):
        raise ConfigError(f"there is no device {device!r} to look at", "Use adb or qemu")
    known_runtime(runtime)
    findings = examine(device, cast("Runtime", runtime))
    people.print(doctor_table(findings))
    healthy = all(f.ok for f in findings)
    if json:
        found = [{"name": f.name, "ok": f.ok, "detail": f.detail, "mend": f.mend} for f in findings]
        print_json({"ok": healthy, "findings": found})
    if not healthy:
        raise typer.Exit(EXIT_NO_DEVICE)


@device_app.command()
def prepare(
    runtime: RuntimeName = "onnxruntime",
    force: Annotated[
        bool, typer.Option("--force", help="Fetch and build everything again.")
    ] = False,
    json: Json = False,
) -> None:
    """Assemble the bundle that goes to a device: runner, runtime, glibc; then work offline."""
    from mobileinst_deploy.phone.device_bundle import Runtime, prepare_bundle

    known_runtime(runtime)

    with progress_bar() as progress:
        bundle = prepare_bundle(runtime=cast("Runtime", runtime), force=force, progress=progress)
    size = sum(f.bytes for f in bundle.files)
    people.print(
        f"The bundle is in {bundle.folder}: {len(bundle.files)} files, {size / 1e6:.1f} MB, "
        f"{bundle.runtime_name}, sha256 {bundle.sha256[:12]}.",
        markup=False,
        soft_wrap=True,
    )
    if json:
        print_json(
            {
                "folder": str(bundle.folder),
                "sha256": bundle.sha256,
                "bytes": size,
                "runtime": bundle.runtime_name,
                "compiler": bundle.compiler,
            }
        )


@device_app.command()
def clean(
    serial: Serials = None,
    every: Every = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also remove the assembled bundle from this machine.")
    ] = False,
) -> None:
    """End every runner on a phone and remove all that was pushed to it."""
    from mobileinst_deploy.phone.adb import choose_devices
    from mobileinst_deploy.phone.shell import AdbDevice
    from mobileinst_deploy.phone.storage import clean_phone

    if cache:
        from mobileinst_deploy.phone.device_bundle import clean_cache

        people.print(f"Freed {clean_cache() / 1e6:.1f} MB on this machine.")
        if not serial and not every:
            return
    for device in choose_devices(serial or (), every=every):
        freed = clean_phone(AdbDevice(device.serial))
        people.print(f"Freed {freed / 1e6:.1f} MB on {device.serial}.", markup=False)
