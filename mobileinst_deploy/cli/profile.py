"""profile: share of time per part of the network and per operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.options import Json, PairFolder, Serial
from mobileinst_deploy.cli.runners import known_device, only_adb
from mobileinst_deploy.core.errors import ConfigError

if TYPE_CHECKING:
    from mobileinst_deploy.workflows.profile import ProfileReport


def profile(
    folder: PairFolder,
    device: Annotated[str, typer.Option(help="Where to profile: cpu or adb.")] = "cpu",
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each graph that count.")] = 20,
    serial: Serial = None,
    core: Annotated[str, typer.Option(help="adb: auto, prime, little or a number.")] = "auto",
    json: Json = False,
) -> None:
    """Show where both graphs spend their time: per part of the network, per operator.

    Measured by ONNX Runtime's own profiler on one core; it makes runs a little slower, so for
    latency use bench. Nothing is written to a file.
    """
    from mobileinst_deploy.core.bundle import load_bundle
    from mobileinst_deploy.workflows.profile import profile_host, profile_phone

    known_device(device)
    if device == "qemu":
        raise ConfigError(
            "an emulated device has no times, and so no shares of time",
            "Use --device cpu or adb; bench --device qemu --count counts executed instructions",
        )
    for_phones = {"--serial": serial is not None, "--core": core != "auto"}
    only_adb([name for name, given in for_phones.items() if given], device)
    bundle = load_bundle(folder)
    if device == "cpu":
        with progress_bar() as progress:
            report = profile_host(bundle, runs, progress=progress)
    else:
        from mobileinst_deploy.phone.adb import choose_devices
        from mobileinst_deploy.phone.device_bundle import prepare_bundle
        from mobileinst_deploy.phone.protocol import check_core

        check_core(core)
        (chosen,) = choose_devices([serial] if serial is not None else [])
        with progress_bar() as progress:
            device_bundle = prepare_bundle(progress=progress)
            report = profile_phone(
                bundle, device_bundle, chosen.serial, runs, core, progress=progress
            )
    _show(report)
    if json:
        print_json(report.to_dict())


def _show(report: ProfileReport) -> None:
    """A table by part and one by operator, both graphs side by side."""
    from rich.markup import escape
    from rich.table import Table

    def cells(name: str, kind: str) -> list[str]:
        found: list[str] = []
        for graph in report.graphs.values():
            rows = graph.parts if kind == "part" else graph.operators
            row = next((r for r in rows if r.name == name), None)
            if row is None:
                found += ["", "", ""]
            elif report.emulated:
                found += ["emulated", "emulated", str(row.nodes)]
            else:
                found += [f"{row.ms:.3f}", f"{100 * row.share:.1f} %", str(row.nodes)]
        return found

    for kind in ("part", "operator"):
        table = Table(title=escape(f"{report.model_id} on {report.device}, by {kind}"))
        table.add_column(kind, no_wrap=True)
        for role in report.graphs:
            for column in (f"{role} ms", "share", "nodes"):
                table.add_column(column, justify="right")
        names = [
            row.name
            for graph in report.graphs.values()
            for row in (graph.parts if kind == "part" else graph.operators)
        ]
        for name in dict.fromkeys(names):
            table.add_row(escape(name), *cells(name, kind))
        people.print(table)
    core = "" if report.core is None else f", core {report.core}"
    people.print(
        f"{report.runtime}{core}; medians over the runs; ms and shares of the time inside nodes",
        markup=False,
        soft_wrap=True,
    )
    if report.emulated:
        people.print("EMULATED: its times are no phone's, and so are not shown.")
