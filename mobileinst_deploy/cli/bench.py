"""bench: latency on this machine or on phones, executed instructions under qemu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.device import bench_adb
from mobileinst_deploy.cli.options import Json, PairFolder, RuntimeName
from mobileinst_deploy.cli.runners import (
    for_device,
    known_device,
    known_runtime,
    ncnn_on_host,
    only_adb,
)
from mobileinst_deploy.core.errors import ConfigError, MeasurementInvalid

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle


def bench(
    folder: PairFolder,
    device: Annotated[str, typer.Option(help="Where to measure: cpu, adb or qemu.")] = "cpu",
    clip_lengths: Annotated[
        str, typer.Option(help="Clip lengths T: a keyframe and T-1 reuse frames.")
    ] = "1,3,6",
    runs: Annotated[
        int | None, typer.Option(min=1, help="Keyframes per clip length, at least; default: 50.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Untimed runs before; default: 10.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds per clip length, at least; default: 10.")
    ] = None,
    live_kernels: Annotated[
        int | None,
        typer.Option(min=1, help="Kernels handed to reuse frames; default: all."),
    ] = None,
    runtime: RuntimeName = "onnxruntime",
    serial: Annotated[
        list[str] | None, typer.Option(help="adb: which phone; may be given several times.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="adb: every phone at once.")] = False,
    core: Annotated[str, typer.Option(help="adb: auto, prime, little or a number.")] = "auto",
    max_temp: Annotated[
        float, typer.Option(help="adb: wait until the phone is at most so warm, in Celsius.")
    ] = 37.0,
    protocol: Annotated[
        str, typer.Option(help="adb: sd778g, or tnn-script for that script's own habits.")
    ] = "sd778g",
    count: Annotated[
        bool, typer.Option("--count", help="qemu: count executed ARM instructions.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure single-thread latency by the protocol; the report goes to latency.json.

    Under qemu nothing is a latency: there, --count gives the executed ARM instructions of each
    graph, equal to the digit from run to run.
    """
    from mobileinst_deploy.core.bundle import load_bundle
    from mobileinst_deploy.workflows.bench import parse_clip_lengths

    known_device(device)
    known_runtime(runtime)
    if count != (device == "qemu"):
        raise ConfigError(
            "an emulated device has no latency" if device == "qemu" else "--count needs qemu",
            "Use --device qemu --count for executed instructions, or --device adb for latency",
        )
    for_phones = {
        "--serial": serial is not None,
        "--all": every,
        "--core": core != "auto",
        "--max-temp": max_temp != 37.0,
        "--protocol": protocol != "sd778g",
    }
    only_adb([name for name, given in for_phones.items() if given], device)
    bundle = load_bundle(folder)
    lengths = parse_clip_lengths(clip_lengths)
    if device == "qemu":
        _count(bundle, runtime, live_kernels, json)
    elif device == "adb":
        bench_adb(
            bundle,
            runtime=runtime,
            clip_lengths=lengths,
            serials=serial,
            every=every,
            core=core,
            max_celsius=max_temp,
            protocol=protocol,
            runs=runs,
            warmups=warmup,
            seconds=seconds,
            live_kernels=live_kernels,
            json=json,
        )
    else:
        _host(bundle, runtime, lengths, runs, warmup, seconds, live_kernels, json)


def _host(
    bundle: ExportBundle,
    runtime: str,
    clip_lengths: tuple[int, ...],
    runs: int | None,
    warmup: int | None,
    seconds: float | None,
    live_kernels: int | None,
    json: bool,
) -> None:
    from mobileinst_deploy.cli.tables import latency_table
    from mobileinst_deploy.core.files import write_json
    from mobileinst_deploy.workflows.bench import (
        DEFAULT_RUNS,
        DEFAULT_SECONDS,
        DEFAULT_WARMUP,
        bench_host,
    )

    with progress_bar() as progress:
        report = bench_host(
            bundle,
            clip_lengths=clip_lengths,
            runs=DEFAULT_RUNS if runs is None else runs,
            warmup=DEFAULT_WARMUP if warmup is None else warmup,
            seconds=DEFAULT_SECONDS if seconds is None else seconds,
            live_kernels=live_kernels,
            runner=ncnn_on_host(bundle) if runtime == "ncnn" else None,
            progress=progress,
        )
    write_json(bundle.folder / "latency.json", report.to_dict())
    people.print(latency_table(report))
    if json:
        print_json(report.to_dict())
    if not report.valid:
        raise MeasurementInvalid(
            f"this measurement must not be believed: {report.invalid[0]}",
            "Close what else is running and measure again; the samples are in latency.json",
        )


def _count(bundle: ExportBundle, runtime: str, live_kernels: int | None, json: bool) -> None:
    import numpy as np

    from mobileinst_deploy.cli.tables import instructions_table
    from mobileinst_deploy.core.bundle import INSTRUCTIONS, load_golden
    from mobileinst_deploy.core.files import write_json
    from mobileinst_deploy.runtimes.qemu import QemuRunner

    n = bundle.config.num_queries
    if live_kernels is not None and live_kernels > n:
        raise ConfigError(f"the model has only {n} kernels", f"Use --live-kernels 1 to {n}")
    golden = load_golden(bundle)
    kernels = golden.kernels(0)[:, : live_kernels or n]
    with progress_bar() as progress:
        pair, device_bundle = for_device(bundle, runtime, progress)
        progress("counting under qemu", 0, None)
        counted = QemuRunner(pair, device_bundle).count_instructions(
            golden.image(0), np.ascontiguousarray(kernels)
        )
    document = {
        "schema": 1,
        "bundle_sha256": bundle.sha256,
        "model_id": bundle.model_id,
        "runtime": device_bundle.runtime_name,
        "live_kernels": live_kernels or n,
        "instructions": {role: i.count for role, i in counted.items()},
        "equal_runs": {role: i.runs for role, i in counted.items()},
        "note": "executed ARM instructions under qemu: exact, and not a latency",
    }
    write_json(bundle.folder / INSTRUCTIONS, document)
    people.print(instructions_table(document))
    if json:
        print_json(document)
