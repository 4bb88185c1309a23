"""device prepare and clean; and bench on phones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobileinst_deploy.cli.console import answer, progress_bar, show
from mobileinst_deploy.cli.options import Every, Json, RuntimeName, Serials
from mobileinst_deploy.core.errors import (
    DeviceError,
    MeasurementInvalid,
    MobileInstError,
    OutputError,
)

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.workflows.bench_phones import PhoneOutcome

LATENCY_FILE = "latency.json"

device_app = typer.Typer(
    name="device", help="What goes to a phone: assemble it, remove it.", no_args_is_help=True
)


@device_app.command()
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
        f"The bundle is in {bundle.folder}: {len(bundle.files)} files, {size / 1e6:.1f} MB, "
        f"{bundle.runtime_name}, sha256 {bundle.sha256[:12]}.",
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


@device_app.command()
def clean(
    serial: Serials = None,
    every: Every = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also remove the assembled bundle from this machine.")
    ] = False,
) -> None:
    """End every runner on a phone and remove all that was pushed to it."""
    from mobileinst_deploy.workflows.device import clean as work, clean_cache

    if cache:
        show(f"Freed {clean_cache() / 1e6:.1f} MB on this machine.")
        if not serial and not every:
            return
    for name, freed in work(serial or (), every=every).items():
        show(f"Freed {freed / 1e6:.1f} MB on {name}.")


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
    from mobileinst_deploy.runtimes import for_device
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
        show(phones_table(reports), json=json)
    answer(document, json=json)
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
