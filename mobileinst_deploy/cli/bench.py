"""bench: latency on this machine or on phones, executed instructions under qemu."""

from __future__ import annotations

from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.cli.options import Json, PairFolder, Report, RuntimeName, only_with
from mobileinst_deploy.core.errors import ConfigError


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
    core: Annotated[
        str | None, typer.Option(help="adb: auto, prime, little or a number; default: auto.")
    ] = None,
    max_temp: Annotated[
        float | None,
        typer.Option(help="adb: wait until the phone is at most so warm, in Celsius; default: 37."),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="sd778g, or tnn-script for that script's own habits.")
    ] = "sd778g",
    count: Annotated[
        bool, typer.Option("--count", help="qemu: count executed ARM instructions.")
    ] = False,
    report: Report = None,
    json: Json = False,
) -> None:
    """Measure single-thread latency by the protocol, and keep the record with every sample.

    It goes to results/DEVICE-RUNTIME-FORM/latency.json under the pair, or where --report says.
    Under qemu nothing is a latency: there, --count gives the executed ARM instructions of each
    graph, equal to the digit from run to run.
    """
    from mobileinst_deploy.cli.tables import instructions_table, latency_table
    from mobileinst_deploy.workflows.bench import bench_pair, count_pair

    if count != (device == "qemu"):
        raise ConfigError(
            "an emulated device has no latency" if device == "qemu" else "--count needs qemu",
            "Use --device qemu --count for executed instructions, or --device adb for latency",
        )
    with progress_bar() as progress:
        if device == "qemu":
            timed = {"--runs": runs, "--warmup": warmup, "--seconds": seconds, "--serial": serial}
            only_with("--device cpu or adb", None, {**timed, "--core": core, "--max-temp": max_temp})
            counted, kept = count_pair(
                folder, runtime, live_kernels=live_kernels, report=report, progress=progress
            )
            problems, document, failure = [kept.note], counted.to_dict(), None
            table = instructions_table(counted)
        else:
            result = bench_pair(
                folder,
                device=device,
                runtime=runtime,
                protocol=protocol,
                clip_lengths=clip_lengths.split(","),
                runs=runs,
                warmup=warmup,
                seconds=seconds,
                live_kernels=live_kernels,
                serials=serial or (),
                every=every,
                core=core,
                max_celsius=max_temp,
                report=report,
                progress=progress,
            )
            problems = [o.kept.note for o in result.outcomes if o.kept is not None]
            document, failure = result.to_dict(), result.failure
            table = latency_table(result.records) if result.records else None
    if table is not None:
        show(table, json=json)
    for problem in filter(None, problems):
        note(f"Note: {problem}.", "yellow")
    answer(document, failure, json=json)
