"""bench: latency on this machine or on phones, executed instructions under qemu."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.cli.console import answer, note, progress_bar, show
from mobileinst_deploy.cli.options import (
    ClipLengths,
    Json,
    PairFolder,
    Report,
    Runs,
    RuntimeName,
    Seconds,
    Warmup,
    only_with,
)
from mobileinst_deploy.core.errors import ConfigError


def bench(
    folder: PairFolder,
    device: Annotated[str, typer.Option(help="Where to measure: cpu, adb or qemu.")] = "cpu",
    clip_lengths: ClipLengths = "1,3,6",
    runs: Runs = None,
    warmup: Warmup = None,
    seconds: Seconds = None,
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
        str, typer.Option(help="sd778g; or tnn-script, as TNN's own benchmark script measures.")
    ] = "sd778g",
    count: Annotated[
        bool, typer.Option("--count", help="qemu: count executed ARM instructions.")
    ] = False,
    report: Report = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what differs from the paper's measurement.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="PAIR|RECORD",
            help="Gate: a pair to run in turn with this one, or its latency.json of before.",
        ),
    ] = None,
    fail_above: Annotated[
        str, typer.Option(help="With --against: how much slower is too much.")
    ] = "5%",
    repeat: Annotated[
        int, typer.Option(min=1, max=100, help="Measure so often; a phone cools before each turn.")
    ] = 1,
    sustained: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Let frames arrive for so long at each T, until one T holds."
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="With --sustained: frames a second; default: 30.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure single-thread latency by the protocol, and keep the record with every sample.

    With --sustained frames arrive as from a camera; told are missed deadlines, latency, clock and
    temperature over time, and the smallest T that keeps up.

    With --against: exit 1 when a frame became slower by more than --fail-above, 4 when noise
    forbids an answer.

    It goes to results/DEVICE-RUNTIME-FORM/latency.json under the pair, or where --report says.
    Under qemu nothing is a latency: there, --count gives the executed ARM instructions of each
    graph, equal to the digit from run to run.
    """
    from mobileinst_deploy.cli.tables import (
        explanation_table,
        instructions_table,
        latency_table,
        slowdown_table,
        sustained_table,
    )
    from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
    from mobileinst_deploy.measure import protocol as protocols
    from mobileinst_deploy.measure.repeats import agreement
    from mobileinst_deploy.measure.sustained import Load
    from mobileinst_deploy.runtimes import as_computed, known_device, known_runtime, only_adb
    from mobileinst_deploy.workflows import against as gate, bench as workflow
    from mobileinst_deploy.workflows.bench_targets import (
        DEFAULT_MAX_CELSIUS,
        BenchSettings,
        open_targets,
    )
    from mobileinst_deploy.workflows.sustained import sustain

    known_device(device)
    known_runtime(runtime)
    if explain and (device == "qemu" or against is not None):
        raise ConfigError(
            "--explain speaks of a measurement of latency",
            "Use it with --device cpu or adb, and without --against",
        )
    if count != (device == "qemu"):
        raise ConfigError(
            "an emulated device has no latency" if device == "qemu" else "--count needs qemu",
            "Use --device qemu --count for executed instructions, or --device adb for latency",
        )
    phones = {"--serial": serial, "--all": every or None, "--core": core, "--max-temp": max_temp}
    only_adb(phones, device)
    core = "auto" if core is None else core
    max_temp = DEFAULT_MAX_CELSIUS if max_temp is None else max_temp
    protocols.check_gate(max_temp)
    protocols.check_core(core)
    settings = BenchSettings(
        protocols.protocol(protocol, warmups=warmup, runs=runs, seconds=seconds),
        protocols.parse_clip_lengths(clip_lengths),
        core,
        max_temp,
        live_kernels=live_kernels,
    )
    pair = as_computed(load_bundle(folder), runtime)
    settings.live(pair)
    only_with("--sustained", sustained, {"--fps": fps})
    if sustained is not None:
        alone = {
            "--against": against,
            "--explain": explain or None,
            "--runs": runs,
            "--seconds": seconds,
            "--all": every or None,
            "--repeat": None if repeat == 1 else repeat,
            "a second --serial": serial if len(serial or ()) > 1 else None,
        }
        if given := [name for name, value in alone.items() if value is not None]:
            raise ConfigError(f"{', '.join(given)} means nothing with --sustained", "Leave it away")
        load = Load(sustained, 30.0 if fps is None else fps)
        with progress_bar() as progress:
            (target,) = open_targets(pair, device, runtime, serials=serial or (), progress=progress)
            borne = sustain(pair, target, settings, load, report=report, progress=progress)
        show(sustained_table(borne.record), json=json)
        if borne.kept.note is not None:
            note(f"Note: {borne.kept.note}.", "yellow")
        answer(borne.record.to_dict(), borne.failure, json=json)
        return
    share = gate.parse_share(fail_above)
    if against is None and fail_above != "5%":
        raise ConfigError("--fail-above speaks of --against", "Add --against, or leave it away")
    if against is not None and device == "qemu":
        raise ConfigError("counts are equal to the digit and need no gate", "Compare them by eye")
    if repeat > 1 and (against is not None or device == "qemu"):
        raise ConfigError(
            "--repeat speaks of latencies, each measured by itself",
            "Use it with --device cpu or adb, and without --against",
        )
    baseline = None if against is None else gate.open_baseline(against)
    if baseline is not None:
        gate.check_comparable(pair, baseline)
    if isinstance(baseline, ExportBundle):
        if device != "cpu":
            raise ConfigError(
                "two pairs run in turn on this machine only",
                "Give --against a latency.json that was measured on the phone",
            )
        with progress_bar() as progress:
            found = gate.against_pair(pair, baseline, settings, share, runtime, progress=progress)
        show(slowdown_table(found), json=json)
        answer(found.to_dict(), found.failure, json=json)
        return
    if device == "qemu":
        with progress_bar() as progress:
            counted, kept = workflow.count_instructions(
                pair, runtime, live_kernels=live_kernels, report=report, progress=progress
            )
        show(instructions_table(counted), json=json)
        problems, document, failure = [kept.note], counted.to_dict(), None
    else:
        with progress_bar() as progress:
            targets = open_targets(
                pair, device, runtime, serials=serial or (), every=every, progress=progress
            )
            if baseline is not None:
                gate.check_measured([target.name for target in targets], baseline)
            result = workflow.bench_repeatedly(
                pair, targets, settings, repeat, report=report, progress=progress
            )
        if result.records:
            show(latency_table(result.records), json=json)
        if repeat > 1:
            for line in agreement(result.records):
                show(line, json=json)
        problems = [note for o in result.outcomes for note in o.notes]
        document, failure = result.to_dict(), result.failure
        if explain:
            explained = workflow.explain_records(pair, result.records)
            for each in explained:
                show(explanation_table(each), json=json)
            document = {**document, "explained": [each.to_dict() for each in explained]}
        mine = None if baseline is None else gate.of_the_same_device(result.records, baseline)
        if baseline is not None and mine is not None:
            held = gate.against_record(mine, baseline, share, str(against))
            problems += [
                f"{record.device.name} was not judged: the baseline is of {mine.device.name}"
                for record in result.records
                if record is not mine
            ]
            show(slowdown_table(held), json=json)
            document = {**document, "against": held.to_dict()}
            failure = failure or held.failure
    for problem in filter(None, problems):
        note(f"Note: {problem}.", "yellow")
    answer(document, failure, json=json)
