"""Where each graph spends its time, by part of the network and by operator: here or on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.contract import IMAGE, ROLES, Role, is_carried
from mobileinst_deploy.core.errors import ConfigError, DeviceError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import OfPair
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.measure.host import pinned_to_one_core
from mobileinst_deploy.measure.node_times import GraphProfile, Share, parts_of, read_profile
from mobileinst_deploy.measure.protocol import check_core, choose_core
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.phone.adb import choose_devices
from mobileinst_deploy.phone.device_bundle import DeviceBundle, prepare_bundle
from mobileinst_deploy.phone.plan import Plan, reuse_pattern
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.runtimes import known_device, only_adb
from mobileinst_deploy.runtimes.graph_bounds import require_bounded
from mobileinst_deploy.runtimes.onnxruntime import VERSION, compute, open_session
from mobileinst_deploy.workflows.results import Kept, pair_place

WARMUPS = 3
DEFAULT_RUNS = 20


@dataclass(frozen=True)
class ProfileReport(OfPair):
    """A pair's profile on one device.

    Attributes:
        emulated: Whether that was an emulator: its times and shares are no phone's and not shown.
        core: The one core it ran on, or None where there is no pinning.
        graphs: Both, by role.
    """

    emulated: bool
    core: int | None
    graphs: Mapping[Role, GraphProfile]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; times and shares of an emulator are null."""

        def shares(rows: tuple[Share, ...]) -> list[dict[str, Any]]:
            return [
                {
                    "name": row.name,
                    "ms": None if self.emulated else row.ms,
                    "share": None if self.emulated else row.share,
                    "nodes": row.nodes,
                }
                for row in rows
            ]

        return {
            "schema": 1,
            "bundle_sha256": self.bundle_sha256,
            "model_id": self.model_id,
            "trained": self.trained,
            "device": self.device,
            "emulated": self.emulated,
            "runtime": self.runtime,
            "core": self.core,
            "graphs": {
                role: {
                    "runs": graph.runs,
                    "run_ms": None if self.emulated else graph.run_ms,
                    "parts": shares(graph.parts),
                    "operators": shares(graph.operators),
                }
                for role, graph in self.graphs.items()
            },
        }


def profile(
    folder: Path,
    *,
    device: str = "cpu",
    runs: int = DEFAULT_RUNS,
    serial: str | None = None,
    core: str | None = None,
    report: Path | None = None,
    progress: Progress = silent,
) -> tuple[ProfileReport, Kept]:
    """Profile both graphs of a pair, on this machine or on a phone, and keep the result.

    Args:
        folder: The pair's.
        device: ``cpu`` or ``adb``.
        runs: Of each graph, those that count.
        serial: Which phone; None means the only one.
        core: On a phone: ``auto``, ``prime``, ``little`` or a number; None means ``auto``.
        report: A file or folder in place of ``results/<device>-<runtime>-<form>/profile.json``.
        progress: Told of each run.

    Raises:
        ConfigError: An option is wrong or does not apply.
        BundleError: The pair cannot be loaded.
        DeviceError: The phone is missing or failed, or the profile cannot be used.
        OutputError: ``report`` cannot be written.
    """
    known_device(device)
    if device == "qemu":
        raise ConfigError(
            "an emulated device has no times, and so no shares of time",
            "Use --device cpu or adb; bench --device qemu --count counts executed instructions",
        )
    only_adb({"--serial": serial, "--core": core}, device)
    bundle = load_bundle(folder)
    wanted = "auto" if core is None else core
    check_core(wanted)
    name = device
    if device == "adb":
        (chosen,) = choose_devices([serial] if serial is not None else [])
        name = f"adb:{chosen.serial}"
    place = pair_place("profile", bundle, name, "onnxruntime", report)
    place.check()
    if device == "cpu":
        found = profile_host(bundle, runs, progress=progress)
    else:
        device_bundle = prepare_bundle(progress=progress)
        found = profile_phone(bundle, device_bundle, chosen.serial, runs, wanted, progress=progress)
    return found, place.keep(found.to_dict())


def profile_host(
    bundle: ExportBundle, runs: int = DEFAULT_RUNS, *, progress: Progress = silent
) -> ProfileReport:
    """Profile both graphs on one core of this machine, reuse frames with all of the kernels.

    Args:
        bundle: The pair.
        runs: Of each graph, after :data:`WARMUPS` that do not count.
        progress: Told of each run.

    Raises:
        BundleError: A graph or the golden data cannot be loaded.
        DeviceError: The profiler wrote nothing usable.
    """
    golden = load_golden(bundle)
    require_bounded(bundle)
    with scratch_folder() as name, pinned_to_one_core() as core:
        sessions = {
            role: open_session(bundle.graphs[role].onnx, profile=name / role) for role in ROLES
        }
        names, masks = ([o.name for o in sessions[role].get_outputs()] for role in ROLES)
        total = WARMUPS + runs
        for turn in range(total):
            image = golden.image(turn % len(golden.images))
            outputs = compute(sessions["frame"], names, {IMAGE: image})
            carried = {name: array for name, array in outputs.items() if is_carried(name)}
            compute(sessions["mask_head"], masks, {IMAGE: image, **carried})
            progress("profile", turn + 1, total)
        files = {role: Path(session.end_profiling()) for role, session in sessions.items()}
        graphs = _read(bundle, files, runs)
    return ProfileReport(
        bundle.sha256,
        bundle.model_id,
        bundle.trained,
        device="cpu",
        runtime=f"onnxruntime {VERSION}",
        emulated=False,
        core=core,
        graphs=graphs,
    )


def profile_phone(
    bundle: ExportBundle,
    device_bundle: DeviceBundle,
    serial: str,
    runs: int = DEFAULT_RUNS,
    core: str = "auto",
    *,
    progress: Progress = silent,
) -> ProfileReport:
    """Profile both graphs on one core of a phone, with the profiler of its own ONNX Runtime.

    Args:
        bundle: The pair.
        device_bundle: What runs there.
        serial: Which phone.
        runs: Of each graph, after :data:`WARMUPS` that do not count.
        core: ``auto``, ``prime``, ``little`` or a number.
        progress: Told of the push and of the runner.

    Raises:
        DeviceError: The phone cannot be used, or what it sent back is no such profile.
    """
    golden = load_golden(bundle)
    images = [golden.image(i) for i in range(min(2, len(golden.images)))]
    specs = {role: graph.spec for role, graph in bundle.graphs.items()}
    paths = {role: graph.files for role, graph in bundle.graphs.items()}
    with (
        Session(AdbDevice(serial), device_bundle, paths, progress) as session,
        scratch_folder() as name,
    ):
        used = choose_core(session.state, core)
        plan = Plan("profile", reuse_pattern(specs, images), core=used, warmups=WARMUPS, runs=runs)
        result = session.start(plan)
        session.fetch(result, name)
        graphs = _read(bundle, {role: name / file for role, file in result.profiles.items()}, runs)
        emulated = session.facts.emulated
    return ProfileReport(
        bundle.sha256,
        bundle.model_id,
        bundle.trained,
        device=f"adb:{serial}" + (" (emulated)" if emulated else ""),
        runtime=result.runtime,
        emulated=emulated,
        core=used,
        graphs=graphs,
    )


def _read(bundle: ExportBundle, files: Mapping[Role, Path], runs: int) -> dict[Role, GraphProfile]:
    missing = [role for role in ROLES if role not in files]
    if missing:
        raise DeviceError(f"there is no profile of the {missing[0]} graph", "Profile again")
    stages = bundle.config.stages if isinstance(bundle.config, ModelConfig) else ()
    graphs = {}
    for role in ROLES:
        parts = parts_of(load_graph(bundle.graphs[role].onnx), stages)
        graphs[role] = read_profile(files[role], role, WARMUPS, parts, stages)
        if graphs[role].runs != runs:
            raise DeviceError(
                f"the profile of the {role} graph holds {graphs[role].runs} of {runs} runs",
                "Profile again",
            )
    return graphs
