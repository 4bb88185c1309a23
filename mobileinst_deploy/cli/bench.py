"""bench: latency on this machine or on phones, executed instructions under qemu."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.cli import bench_modes as modes
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

#: What TNN's own program can be held to.
_TNN_PROTOCOL = "tnn-script"


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
        str | None,
        typer.Option(
            help="sd778g, the default; or tnn-script, as TNN's own benchmark script measures."
        ),
    ] = None,
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
        str | None, typer.Option(help="With --against: how much slower is too much; default: 5%.")
    ] = None,
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
    tnn: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="adb: let TNN's own TNNTest, which you built, time the pair that you converted.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure single-thread latency by the protocol, and keep the record with every sample.

    With --sustained frames arrive as from a camera; told are missed deadlines, latency, clock and
    temperature over time, and the smallest T that keeps up.

    With --against: exit 1 when a frame became slower by more than --fail-above, 4 when noise
    forbids an answer.

    With --tnn: FOLDER holds TNNTest for arm64-v8a, the .so files that it needs, and frame and
    mask_head, each as .tnnproto and .tnnmodel. Nothing is compared; see docs/phone.md.

    It goes to results/DEVICE-RUNTIME-FORM/latency.json under the pair, or where --report says.
    Under qemu nothing is a latency: there, --count gives the executed ARM instructions of each
    graph, equal to the digit from run to run.
    """
    from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
    from mobileinst_deploy.measure import protocol as protocols
    from mobileinst_deploy.runtimes import as_computed, known_device, known_runtime, only_adb
    from mobileinst_deploy.workflows import against as gate
    from mobileinst_deploy.workflows.bench_targets import DEFAULT_MAX_CELSIUS, BenchSettings

    known_device(device)
    known_runtime(runtime)
    only_adb(
        {
            **{"--serial": serial, "--all": every or None, "--core": core},
            **{"--max-temp": max_temp, "--tnn": tnn},
        },
        device,
    )
    only_with("--sustained", sustained, {"--fps": fps})
    only_with("--against", against, {"--fail-above": fail_above})
    _refuse_what_does_not_go_together(
        device,
        count=count,
        explain=explain,
        against=against,
        repeat=repeat,
        sustained=sustained,
        not_with_sustained={
            "--against": against,
            "--explain": explain or None,
            "--runs": runs,
            "--seconds": seconds,
            "--all": every or None,
            "--repeat": None if repeat == 1 else repeat,
            "a second --serial": serial if len(serial or ()) > 1 else None,
        },
    )
    if tnn is not None:
        _only_what_tnn_takes(
            protocol,
            {
                "--runtime": None if runtime == "onnxruntime" else runtime,
                "--seconds": seconds,
                "--live-kernels": live_kernels,
                "--max-temp": max_temp,
                "--all": every or None,
                "a second --serial": serial if len(serial or ()) > 1 else None,
                "--repeat": None if repeat == 1 else repeat,
                "--explain": explain or None,
                "--against": against,
                "--sustained": sustained,
            },
        )
    core = "auto" if core is None else core
    max_temp = DEFAULT_MAX_CELSIUS if max_temp is None else max_temp
    protocols.check_gate(max_temp)
    protocols.check_core(core)
    settings = BenchSettings(
        protocols.protocol(
            protocol or ("sd778g" if tnn is None else _TNN_PROTOCOL),
            warmups=warmup,
            runs=runs,
            seconds=seconds,
        ),
        protocols.parse_clip_lengths(clip_lengths),
        core,
        max_temp,
        live_kernels=live_kernels,
    )
    share = gate.parse_share("5%" if fail_above is None else fail_above)
    pair = as_computed(load_bundle(folder), runtime)
    settings.live(pair)
    where = modes.Where(device, runtime, tuple(serial or ()), every, report)
    if tnn is not None:
        modes.by_tnn(pair, where, settings, tnn, json)
        return
    baseline = None if against is None else gate.open_baseline(against)
    if baseline is not None:
        gate.check_comparable(pair, baseline)
    if sustained is not None:
        modes.sustained(pair, where, settings, sustained, 30.0 if fps is None else fps, json)
    elif isinstance(baseline, ExportBundle):
        modes.in_turn(pair, baseline, where, settings, share, json)
    elif device == "qemu":
        modes.counted(pair, where, live_kernels, json)
    else:
        judged = None if baseline is None else modes.Judged(baseline, share, str(against))
        modes.timed(pair, where, settings, repeat, judged, explain=explain, json=json)


def _refuse_what_does_not_go_together(
    device: str,
    *,
    count: bool,
    explain: bool,
    against: Path | None,
    repeat: int,
    sustained: float | None,
    not_with_sustained: Mapping[str, object],
) -> None:
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
    given = [name for name, value in not_with_sustained.items() if value is not None]
    if sustained is not None and given:
        raise ConfigError(f"{', '.join(given)} means nothing with --sustained", "Leave it away")
    if against is not None and device == "qemu":
        raise ConfigError("counts are equal to the digit and need no gate", "Compare them by eye")
    if repeat > 1 and (against is not None or device == "qemu"):
        raise ConfigError(
            "--repeat speaks of latencies, each measured by itself",
            "Use it with --device cpu or adb, and without --against",
        )


def _only_what_tnn_takes(protocol: str | None, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if protocol not in (None, _TNN_PROTOCOL):
        given.append(f"--protocol {protocol}")
    if given:
        raise ConfigError(
            f"{', '.join(given)} means nothing with --tnn: TNN's test program counts its own runs"
            " and tells no single one",
            "Leave it away",
            where=given[0],
        )
