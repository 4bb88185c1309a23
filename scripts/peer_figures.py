#!/usr/bin/env python3
"""Measure peers at one small size: parity in each runtime, and executed instructions.

scripts/peer_figures.py ID...      peers or models of the zoo; minutes each; a line of JSON each

Weights are random: parity and instructions do not ask for trained ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.network.peers.catalogue import PEERS, load_peer
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.runtimes import for_device
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.pytorch import TorchRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner

#: The smallest that every network and ncnn take: a count under qemu then takes a minute.
SIZE = (128, 128)


def calls_of(pair: ExportBundle) -> list[Call]:
    """A keyframe and a reuse frame with its kernels, of the pair's golden data."""
    golden = load_golden(pair)
    image = golden.image(0)
    return [
        Call("frame", {"image": image}),
        Call("mask_head", {"image": image, "kernels": golden.kernels(0)}),
    ]


def furthest(got: list[dict[str, Any]], want: list[dict[str, Any]]) -> float:
    """The largest difference of any output, as a share of that output's largest value."""
    shares = [
        np.abs(mine[name] - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-9)
        for mine, theirs in zip(got, want, strict=True)
        for name in theirs
    ]
    return float(max(shares))


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Everything that is told of one network at :data:`SIZE`."""
    peer = name in PEERS
    loaded = load_peer(name, None, SIZE) if peer else load_model(name, size=SIZE)
    pair = export_model(loaded, folder / name)
    calls, found = calls_of(pair), {"size": list(SIZE)}
    want = TorchRunner(loaded.model).outputs(calls)
    found["largest"] = float(np.abs(want[0]["mask_logits"]).max())
    found["onnx"] = furthest(CpuRunner(pair).outputs(calls), want)
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
            "qemu": furthest(outputs, want),
            "instructions": {role: each.count for role, each in counted.items()},
        }
    return found


def main() -> int:
    """Measure what is named; the exit code is that of the command line's errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="ID")
    try:
        for name in parser.parse_args().names:
            with tempfile.TemporaryDirectory() as folder:
                print(f"{name}: {json.dumps(measure(name, Path(folder)))}", flush=True)
    except MobileInstError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
