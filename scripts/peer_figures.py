#!/usr/bin/env python3
"""Measure peers at one small size, and keep the figures for the documents' tables.

scripts/peer_figures.py NAME...      measure these, peers or models of the zoo; several minutes each
scripts/peer_figures.py --missing    all of Tables 1 and 2 that have no figures yet

Weights are random: parity and instructions do not ask for trained ones. Each figure goes to
``peer_figures.json`` beside this script as soon as it is there; ``scripts/docs.py`` makes tables.
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
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.network.peers.catalogue import PEERS, load_peer
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.runtimes import for_device
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.pytorch import TorchRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner

RECORD = Path(__file__).with_name("peer_figures.json")
#: The smallest that every network and ncnn take: a count under qemu then takes a minute.
SIZE = (128, 128)
OWN = ("mobileinst-topformer-640", "mobileinst-topformer-vis")


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
    parser.add_argument("names", nargs="*")
    parser.add_argument("--missing", action="store_true", help="all that have no figures yet")
    asked = parser.parse_args()
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    names = asked.names or [n for n in (*OWN, *PEERS) if asked.missing and n not in known]
    try:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(name, Path(folder))
            # Somebody else may have written in the meantime.
            known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
            write_json(RECORD, dict(sorted({**known, name: found}.items())))
            print(f"{name}: {json.dumps(found)}", flush=True)
    except MobileInstError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
