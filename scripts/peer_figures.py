#!/usr/bin/env python3
"""Measure networks at one small size: parity in each runtime, instructions, time on this computer.

scripts/peer_figures.py ID...            peers or models of the zoo; minutes each; prints JSON
scripts/peer_figures.py ID... --record   keeps it in peer_figures.json too, of which docs/tables.md
                                         is made (scripts/docs.py)

Weights are random: none of the figures asks for trained ones. Time is processor time of a keyframe
in ONNX Runtime over that of mobileinst-topformer-640 at the same size, the two in turn, a median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.contract import Call, Tensors
from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.network.loading import LoadedModel, load_model
from mobileinst_deploy.network.peers.catalogue import PEERS, load_peer
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.instances import match_instances, picks_instances
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.runtimes import for_device
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.pytorch import TorchRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner

#: The smallest that every network and ncnn take: a count under qemu then takes a minute.
SIZE = (128, 128)
LARGER = (320, 320)
BESIDE = "mobileinst-topformer-640"
#: What FastInst is held against.
AT_LARGER = "@320x320"
LARGER_BESIDE = BESIDE + AT_LARGER
RECORD = Path(__file__).with_name("peer_figures.json")
_ROUNDS = 15


def calls_of(pair: ExportBundle) -> list[Call]:
    """A keyframe and a reuse frame with its kernels, of the pair's golden data."""
    golden = load_golden(pair)
    image = golden.image(0)
    return [
        Call("frame", {"image": image}),
        Call("mask_head", {"image": image, "kernels": golden.kernels(0)}),
    ]


def furthest(got: Sequence[Tensors], want: Sequence[Tensors], pair: ExportBundle) -> dict[str, Any]:
    """The largest difference of any output, as a share of that output's largest value.

    A network that picks its instances is compared by instance, as ``verify`` does.
    """
    (frame, head), (their_frame, their_head) = got, want
    n = pair.config.num_queries
    alike = n
    if picks_instances(load_graph(pair.graphs["frame"].onnx)):
        matched = match_instances(frame, their_frame, pair.tolerance)
        frame, alike = matched.outputs, round(n * matched.share)
    shares = [
        np.abs(mine[name] - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-9)
        for mine, theirs in ((frame, their_frame), (head, their_head))
        for name in theirs
    ]
    return {"off": float(max(shares)), "instances": [alike, n]}


def host_ratio(call: Call, runner: CpuRunner, other: Call, beside: CpuRunner) -> float:
    """Processor time of a call over another's, the two in turn: the median of all rounds."""
    ratios = []
    for _ in range(_ROUNDS + 1):
        taken = []
        for each, its in ((runner, call), (beside, other)):
            started = time.process_time()
            each.outputs([its])
            taken.append(time.process_time() - started)
        ratios.append(taken[0] / taken[1])
    return statistics.median(ratios[1:])


def exported(name: str, size: tuple[int, int], folder: Path) -> tuple[LoadedModel, ExportBundle]:
    """A peer or a model of the zoo with random weights, and its pair."""
    loaded = load_peer(name, None, size) if name in PEERS else load_model(name, size=size)
    return loaded, export_model(loaded, folder / name)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Everything that is told of one network, beside :data:`BESIDE`.

    FastInst proposes its instances from a map that is too small at :data:`SIZE`: it gets
    :data:`LARGER`.
    """
    size = LARGER if name.startswith("fastinst") or name == LARGER_BESIDE else SIZE
    loaded, pair = exported(name.removesuffix(AT_LARGER), size, folder)
    _, beside = exported(BESIDE, size, folder / "beside")
    calls, here = calls_of(pair), CpuRunner(pair)
    want = TorchRunner(loaded.model).outputs(calls)
    found: dict[str, Any] = {
        "size": list(loaded.config.input_size),
        "host": host_ratio(calls[0], here, calls_of(beside)[0], CpuRunner(beside)),
        "cpu": furthest(here.outputs(calls), want, pair),
    }
    for runtime in ("onnxruntime", "ncnn"):
        try:
            taken, device = for_device(pair, runtime)
            runner = QemuRunner(taken, device)
            outputs = runner.outputs(calls)
            counted = runner.count_instructions(
                calls[0].inputs["image"], calls[1].inputs["kernels"], warmups=0, repeats=1
            )
        except MobileInstError as error:
            found[runtime] = {"refused": error.cause}
            continue
        found[runtime] = {
            "version": device.runtime_version,
            "qemu": furthest(outputs, want, pair),
            "instructions": {role: each.count for role, each in counted.items()},
        }
    return found


def record(name: str, found: dict[str, Any]) -> None:
    """Keep one network's figures beside those of the others."""
    known = json.loads(RECORD.read_text())["networks"] if RECORD.exists() else {}
    known[name] = found
    write_json(RECORD, {"schema": 1, "size": list(SIZE), "networks": dict(sorted(known.items()))})


def main() -> int:
    """Measure what is named; the exit code is that of the command line's errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="ID")
    parser.add_argument("--record", action="store_true", help=f"keep it in {RECORD.name}")
    options = parser.parse_args()
    try:
        with scratch_folder() as scratch:
            for number, name in enumerate(options.names):
                found = measure(name, scratch / str(number))
                print(json.dumps({name: found}), flush=True)
                if options.record:
                    record(name, found)
    except MobileInstError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
