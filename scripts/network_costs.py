#!/usr/bin/env python3
"""Set networks side by side: what one picture costs in each runtime, counted in one run.

    scripts/network_costs.py FOLDER --graphs YOLO/*.onnx --pairs PAIR ...     prints a table

--graphs are ONNX files with one picture for an input and whatever outputs, such as those of
scripts/yolo_graphs.py; of --pairs (folders that `mobileinst export` wrote) the keyframe is counted.
Every network is counted in ONNX Runtime, ncnn and ncnn-fp16, by the same runner and counter, with
ncnn built once more with the layers that such graphs need. Host time is processor time of ONNX
Runtime on one thread, the networks in turn, a median. What is known already is in
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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

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
from mobileinst_deploy.runtimes.ncnn.network import read_param
from mobileinst_deploy.runtimes.onnxruntime import open_session
from mobileinst_deploy.runtimes.qemu import QemuRunner

RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "ncnn", "ncnn-fp16")
#: What pnnx makes of YOLO's graphs beside the layers of layers.txt.
EXTRA_LAYERS = ("Deconvolution",)
_ROUNDS = 15


def one_graph(spec: GraphSpec, files: Sequence[Path]) -> Any:
    """What a runner under qemu asks of a pair, of a graph alone: the frame graph's place is its."""
    contents = tuple(read_content(path) for path in files)
    graph = SimpleNamespace(spec=spec, files=contents, path=contents[0].path)
    return SimpleNamespace(specs={"frame": spec}, graphs={"frame": graph})


def signature(path: Path) -> GraphSpec:
    """The inputs and outputs that a graph's file declares, which must be whole numbers."""
    graph = load_graph(path)
    initialisers = frozenset(t.name for t in graph.graph.initializer)
    inputs = tensor_specs(list(graph.graph.input), initialisers)
    return GraphSpec("frame", tuple(inputs), tuple(tensor_specs(list(graph.graph.output))))


def converted(path: Path, spec: GraphSpec, folder: Path) -> tuple[GraphSpec, list[Path]]:
    """A graph as pnnx makes it: its own names for what goes in and out."""
    work = folder / "ncnn" / path.stem
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


def bundle(runtime: Runtime, folder: Path) -> DeviceBundle:
    """What runs graphs under qemu: the package's own, or ncnn with more layers, built once."""
    own = prepare_bundle(runtime=runtime)
    if runtime == "onnxruntime":
        return own
    made = folder / "runners" / runtime
    if not made.exists():
        archive = ncnn_build.fetch_source(default_cache(), force=False)
        made.mkdir(parents=True)
        with scratch_folder() as scratch:
            ncnn_build.build_runner(archive, runtime, made, scratch, EXTRA_LAYERS)
        (made / ncnn_build.RUNNERS[runtime]).chmod(0o755)
    return replace(own, folder=made)


def count(path: Path, runtime: Runtime, folder: Path) -> dict[str, int]:
    """Executed ARM instructions of one picture, by kind."""
    spec, files = signature(path), [path]
    if runtime != "onnxruntime":
        spec, files = converted(path, spec, folder)
    runner = QemuRunner(one_graph(spec, files), bundle(runtime, folder))
    rng = np.random.default_rng(0)
    # Ours take values up to 255, YOLO's up to 1.
    most = 255.0 if path.parent.joinpath("manifest.json").exists() else 1.0
    given = {
        t.name: (most * rng.random(tuple(map(int, t.shape)))).astype(np.float32)
        for t in spec.inputs
    }
    found = runner.count_calls((plan_call(spec, given),), warmups=1, repeats=1)
    return dict(found["frame"].kinds)


def host_ms(paths: Mapping[str, Path]) -> dict[str, float]:
    """Processor time, ms, of one picture in ONNX Runtime here, one thread; networks in turn."""
    sessions = {name: open_session(read_content(path)) for name, path in paths.items()}
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(_ROUNDS + 2):
        for name, session in sessions.items():
            given = {i.name: np.zeros(i.shape, np.float32) + turn for i in session.get_inputs()}
            started = time.process_time()
            session.run(None, given)
            taken[name].append(1e3 * (time.process_time() - started))
    return {name: statistics.median(times[2:]) for name, times in taken.items()}


def main() -> int:
    """Measure what is not known yet, then print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--graphs", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    paths = {path.stem: path for path in options.graphs}
    paths |= {
        json.loads((pair / "manifest.json").read_text())["model"]["id"]: pair / "frame.onnx"
        for pair in options.pairs
    }
    kept = folder / "costs.json"
    known: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, path in paths.items():
        for runtime in RUNTIMES:
            if (key := f"{name} {runtime}") not in known:
                print(f"{key} ...", file=sys.stderr)
                known[key] = count(path, runtime, folder)
                write_json(kept, known)
    times = host_ms(paths)
    print("| network | runtime | ARM instructions | fmla | loads | branches | bound, cycles |")
    print("|---|---|---|---|---|---|---|")
    for name in paths:
        for runtime in RUNTIMES:
            kinds = known[f"{name} {runtime}"]
            total, least = sum(kinds.values()), bound(kinds)
            parts = (multiply_accumulates(kinds), kinds["load"], kinds["branch"])
            shares = " | ".join(f"{part / total:.1%}" for part in parts)
            cycles = f"{least.cycles / 1e6:,.0f} M ({least.by})"
            print(f"| {name} | {runtime} | {total / 1e6:,.0f} M | {shares} | {cycles} |")
    print("\n| network | host time, ms |\n|---|---|")
    for name, ms in times.items():
        print(f"| {name} | {ms:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
