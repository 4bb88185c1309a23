"""devices, doctor, device prepare and clean; and bench on phones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.options import Json, RuntimeName
from mobileinst_deploy.cli.runners import for_device, known_runtime
from mobileinst_deploy.core.errors import (
    EXIT_NO_DEVICE,
    ConfigError,
    DeviceError,
    MeasurementInvalid,
    MobileInstError,
    OutputError,
)

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.workflows.bench_phones import PhoneOutcome

Serials = Annotated[
    list[str] | None, typer.Option("--serial", help="Which phone; may be given several times.")
]
Every = Annotated[bool, typer.Option("--all", help="Every phone that adb sees.")]

LATENCY_FILE = "latency.json"

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


def bench_adb(
    pair: ExportBundle,
    *,
    runtime: str = "onnxruntime",
    clip_lengths: tuple[int, ...],
    serials: list[str] | None = None,
    every: bool = False,
    core: str = "auto",
    max_celsius: float = 37.0,
    protocol: str = "sd778g",
    runs: int | None = None,
    warmups: int | None = None,
    seconds: float | None = None,
    live_kernels: int | None = None,
    json: bool = False,
) -> None:
    """Measure a pair on phones; the report goes to latency.json beside the pair.

    Args:
        pair: The exported pair.
        runtime: What runs it there.
        clip_lengths: Every T.
        serials: Which phones; None means the only one.
        every: All usable phones at once.
        core: ``auto``, ``prime``, ``little`` or a number.
        max_celsius: A phone must be at or below it to start.
        protocol: ``sd778g`` or ``tnn-script``.
        runs: Timed runs of each graph per clip length; None means the protocol's, as below.
        warmups: Untimed runs of each graph before.
        seconds: Length of each clip length's schedule, at least.
        live_kernels: Kernels handed to reuse frames; None means all of them.
        json: Print the report to stdout as well.

    Raises:
        DeviceError: A phone is missing, unusable, or failed; what others measured is saved.
        MeasurementInvalid: The conditions broke the protocol; the samples are saved.
        ConfigError: An option is wrong.
        OutputError: The report cannot be written beside the pair; it is saved elsewhere.
    """
    from mobileinst_deploy.cli.device_tables import phones_table
    from mobileinst_deploy.phone import protocol as protocols
    from mobileinst_deploy.phone.adb import choose_devices
    from mobileinst_deploy.workflows.bench_phones import PhoneSettings, bench_phones

    used = protocols.protocol(protocol, warmups=warmups, runs=runs, seconds=seconds)
    protocols.check_gate(max_celsius)
    protocols.check_core(core)
    settings = PhoneSettings(used, clip_lengths, core, max_celsius, live_kernels=live_kernels)
    chosen = [d.serial for d in choose_devices(serials or (), every=every)]
    with progress_bar() as progress:
        taken, device_bundle = for_device(pair, runtime, progress)
        outcomes = bench_phones(taken, device_bundle, chosen, settings, progress=progress)
    document = report_document(outcomes)
    reports = [o.report for o in outcomes if o.report is not None]
    if reports:
        people.print(phones_table(reports))
    if json:
        print_json(document)
    if reports:
        _keep(pair.folder / LATENCY_FILE, document)
    _insist(outcomes)


def report_document(outcomes: tuple[PhoneOutcome, ...]) -> dict[str, Any]:
    """What latency.json holds: one phone's report, or all of them and what failed."""
    if len(outcomes) == 1 and outcomes[0].report is not None:
        return outcomes[0].report.to_dict()
    return {
        "schema": 1,
        "phones": [o.report.to_dict() for o in outcomes if o.report is not None],
        "failed": [
            {"serial": o.serial, "cause": o.error.cause} for o in outcomes if o.error is not None
        ],
    }


def _keep(path: Path, document: dict[str, Any]) -> None:
    """Save a report even where its own folder is full or read-only: minutes of a phone are in it.

    Raises:
        OutputError: It could not be written where it belongs.
    """
    from mobileinst_deploy.core.files import write_json

    try:
        write_json(path, document)
    except OutputError as error:
        elsewhere = Path(tempfile.mkdtemp(prefix="mobileinst-")) / LATENCY_FILE
        try:
            write_json(elsewhere, document)
        except OutputError:
            raise error from None
        raise OutputError(
            error.cause, f"The measurement is kept in {elsewhere}: copy it from there"
        ) from error


def _insist(outcomes: tuple[PhoneOutcome, ...]) -> None:
    """Turn failed phones and invalid measurements into the exit code."""
    errors = [(o.serial, o.error) for o in outcomes if o.error is not None]
    if len(outcomes) == 1 and errors:
        raise errors[0][1]
    if errors:
        told: list[tuple[str, MobileInstError]] = errors
        raise DeviceError(
            f"{len(told)} of {len(outcomes)} phones failed: "
            + "; ".join(f"{serial}: {error.cause}" for serial, error in told),
            f"{told[0][1].next_step}; what the others measured is in {LATENCY_FILE}",
        )
    invalid = [
        (o.serial, o.report) for o in outcomes if o.report is not None and not o.report.valid
    ]
    if invalid:
        serial, report = invalid[0]
        raise MeasurementInvalid(
            f"the measurement on {serial} must not be believed: {'; '.join(report.invalid)}",
            f"Measure again when that no longer holds; the samples are in {LATENCY_FILE}",
        )
