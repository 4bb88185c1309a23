#!/usr/bin/env python3
"""Set networks side by side: what one picture costs in each runtime, counted in one run.

    scripts/network_costs.py FOLDER --graphs YOLO/*.onnx --pairs PAIR ...     prints a table

--graphs are ONNX files with one picture for an input and whatever outputs, such as those of
scripts/yolo_graphs.py; of --pairs (what `mobileinst export`, `optimize` or `quantize` wrote)
the keyframe is counted. Every network is counted in ONNX Runtime, ncnn and ncnn-fp16, by the same
counter; pairs that were rewritten for ONNX Runtime in that alone. For --graphs ncnn's runner is
built once more, with the layers that they need. Host time is processor time on one thread,
everything in turn, a median; this computer's ncnn has no half precision. What was counted is in
FOLDER/costs.json, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import load_bundle
from mobileinst_deploy.core.content import read_content
from mobileinst_deploy.core.contract import GraphSpec
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.measure.instructions import bound, multiply_accumulates
from mobileinst_deploy.pair.onnx_file import load_graph, tensor_specs
from mobileinst_deploy.phone import ncnn_build
from mobileinst_deploy.phone.device_bundle import (
    DeviceBundle,
    Runtime,
    default_cache,
    prepare_bundle,
)
from mobileinst_deploy.phone.plan import plan_call
from mobileinst_deploy.runtimes.host import HostRunner
from mobileinst_deploy.runtimes.ncnn.host import NcnnRunner
from mobileinst_deploy.runtimes.ncnn.network import read_param
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner

RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "ncnn", "ncnn-fp16")
#: What pnnx makes of YOLO's graphs beside the layers of layers.txt.
EXTRA_LAYERS = ("Deconvolution",)
_ROUNDS = 15


@dataclass(frozen=True)
class Network:
    """A graph to measure.

    Attributes:
        name: Of the network.
        form: ``plain``, or what was made of a pair.
        path: The ONNX file.
        brightest: What a picture's values reach: ours take up to 255, YOLO's up to 1.
        runtimes: Where to count it.
        layers: Of ncnn that it needs beside those of the package's own runner.
    """

    name: str
    form: str
    path: Path
    brightest: float

    runtimes: tuple[Runtime, ...]
    layers: tuple[str, ...] = ()


def networks(
    graphs: Sequence[Path], pairs: Sequence[Path], asked: Sequence[Runtime]
) -> list[Network]:
    """What the command line names."""
    found = [Network(p.stem, "plain", p, 1.0, tuple(asked), EXTRA_LAYERS) for p in graphs]
    for pair in map(load_bundle, pairs):
        # What was rewritten for ONNX Runtime, pnnx does not convert.
        runtimes = tuple(r for r in asked if pair.form == "plain" or r == "onnxruntime")
        path = pair.graphs["frame"].path
        found.append(Network(pair.model_id, pair.form, path, 255.0, runtimes))
    return found


def one_graph(spec: GraphSpec, files: Sequence[Path]) -> Any:
    """What runners ask of a pair, of a graph alone: the frame graph's place is its."""
    contents = tuple(read_content(path) for path in files)
    graph = SimpleNamespace(spec=spec, files=contents, path=contents[0].path, onnx=contents[0])
    return SimpleNamespace(specs={"frame": spec}, graphs={"frame": graph})


def signature(path: Path) -> GraphSpec:
    """The inputs and outputs that a graph's file declares, which must be whole numbers."""
    graph = load_graph(path)
    initialisers = frozenset(t.name for t in graph.graph.initializer)
    inputs = tensor_specs(list(graph.graph.input), initialisers)
    return GraphSpec("frame", tuple(inputs), tuple(tensor_specs(list(graph.graph.output))))


def converted(path: Path, spec: GraphSpec, folder: Path) -> tuple[GraphSpec, list[Path]]:
    """A graph as pnnx makes it: its own names for what goes in and out."""
    work = folder / "ncnn" / read_content(path).sha256[:16]
    param = work / "graph.ncnn.param"
    if not param.exists():
        work.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, work / "graph.onnx")
        found = importlib.util.find_spec("pnnx")
        if found is None or not found.submodule_search_locations:
            raise SystemExit("pnnx is not installed; run: pip install pnnx")
        program = Path(found.submodule_search_locations[0]) / "pnnx"
        subprocess.run([program, "graph.onnx", "fp16=0"], cwd=work, check=True, capture_output=True)
    known = {blob for layer in read_param(read_content(param)) for blob in layer.outputs}
    names = [f"out{i}" for i in range(len(spec.outputs))]
    if missing := set(names) - known:
        raise SystemExit(f"pnnx lost {', '.join(sorted(missing))} of {path}")
    outputs = tuple(replace(t, name=n) for t, n in zip(spec.outputs, names, strict=True))
    inputs = tuple(replace(t, name=f"in{i}") for i, t in enumerate(spec.inputs))
    return GraphSpec("frame", inputs, outputs), [param, param.with_suffix(".bin")]


def bundle(network: Network, runtime: Runtime, folder: Path) -> DeviceBundle:
    """What runs a graph under qemu: the package's own, or ncnn with more layers, built once."""
    if runtime == "onnxruntime" or not network.layers:
        return prepare_bundle(runtime=runtime)
    made = folder / "runners" / runtime
    if not made.exists():
        archive = ncnn_build.fetch_source(default_cache(), force=False)
        made.mkdir(parents=True)
        with scratch_folder() as scratch:
            ncnn_build.build_runner(archive, runtime, made, scratch, network.layers)
        (made / ncnn_build.RUNNERS[runtime]).chmod(0o755)
    return DeviceBundle(made, (), "", runtime, ncnn_build.VERSION, "as the package's own")


def prepared(network: Network, runtime: Runtime, folder: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The graph as a runtime takes it, and a picture of noise for it."""
    spec, files = signature(network.path), [network.path]
    if runtime != "onnxruntime":
        spec, files = converted(network.path, spec, folder)
    rng = np.random.default_rng(0)
    given = {
        t.name: (network.brightest * rng.random(tuple(map(int, t.shape)))).astype(np.float32)
        for t in spec.inputs
    }
    return one_graph(spec, files), given


def count(network: Network, runtime: Runtime, folder: Path) -> dict[str, int]:
    """Executed ARM instructions of one picture, by kind: of the first after loading."""
    graph, given = prepared(network, runtime, folder)
    runner = QemuRunner(graph, bundle(network, runtime, folder))
    call = plan_call(graph.specs["frame"], given)
    found = runner.count_calls((call,), warmups=0, repeats=1)
    return dict(found["frame"].kinds)


def host_ms(asked: Sequence[Network], folder: Path) -> dict[str, float]:
    """Processor time, ms, of one picture here, one thread, by :func:`key`; everything in turn."""
    runner: HostRunner
    runners: dict[str, tuple[HostRunner, dict[str, np.ndarray]]] = {}
    for network in asked:
        for runtime in set(network.runtimes) - {"ncnn-fp16"}:
            graph, given = prepared(network, runtime, folder)
            runner = CpuRunner(graph) if runtime == "onnxruntime" else NcnnRunner(graph)
            runners[key(network, runtime)] = runner, given
    taken: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(_ROUNDS + 2):
        for name, (runner, given) in runners.items():
            run = runner.ready("frame", given)
            started = time.process_time()
            run.compute()
            taken[name].append(1e3 * (time.process_time() - started))
    return {name: statistics.median(times[2:]) for name, times in taken.items()}


def key(network: Network, runtime: str) -> str:
    """What a figure is kept by."""
    return f"{network.path} {runtime}"


def main() -> int:
    """Measure what is not known yet, then print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--graphs", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", type=Path, nargs="*", default=[])
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    asked = networks(options.graphs, options.pairs, options.runtimes)
    kept = folder / "costs.json"
    known: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for network in asked:
        sha256 = read_content(network.path).sha256
        for runtime in network.runtimes:
            name = key(network, runtime)
            if known.get(name, {}).get("sha256") != sha256:
                print(f"{name} ...", file=sys.stderr)
                known[name] = {"sha256": sha256, "kinds": count(network, runtime, folder)}
                write_json(kept, known)
    times = host_ms(asked, folder)
    columns = ["network", "input", "form", "runtime", "ARM instructions", "fmla", "loads"]
    columns += ["branches", "bound, cycles", "host, ms"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for network in asked:
        height, width = signature(network.path).inputs[0].shape[2:]
        for runtime in network.runtimes:
            name = key(network, runtime)
            kinds = known[name]["kinds"]
            total, least = sum(kinds.values()), bound(kinds)
            parts = (multiply_accumulates(kinds), kinds["load"], kinds["branch"])
            cells = [
                network.name,
                f"{height}x{width}",
                network.form,
                runtime,
                f"{total / 1e6:,.1f} M",
            ]
            cells += [f"{part / total:.1%}" for part in parts]
            cells += [f"{least.cycles / 1e6:,.0f} M ({least.by})"]
            cells += [f"{times[name]:.1f}" if name in times else ""]
            print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
