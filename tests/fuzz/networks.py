"""Readers of pairs of graphs and of weights."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

import tiny_export
import tiny_pair

from fuzz.target import Target, file_of, scratch
from mobileinst_deploy.core.bundle import load_bundle
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.files import canonical_sha256
from mobileinst_deploy.core.golden import read_golden
from mobileinst_deploy.network.checkpoint import CONFIG_KEY, load_checkpoint
from mobileinst_deploy.network.weights_file import read_weights_file
from mobileinst_deploy.pair.onnx_file import summarise
from mobileinst_deploy.runtimes.graph_bounds import bounds_fault
from mobileinst_deploy.runtimes.ncnn.network import check_weights, read_param
from mobileinst_deploy.training.checkpoints import load_state, require_state_of


@cache
def _pair() -> Path:
    folder = scratch() / "pair"
    tiny_export.export(folder)
    return folder


def _manifest(data: bytes) -> object:
    """A manifest signed as a forger would, so that what it says is read."""
    try:
        document = json.loads(data)
        document["digest"] = canonical_sha256({k: v for k, v in document.items() if k != "digest"})
        data = json.dumps(document).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    (_pair() / "manifest.json").write_bytes(data)
    return load_bundle(_pair())


def _manifest_seeds() -> list[bytes]:
    tiny_export.export(_pair())
    return [(_pair() / "manifest.json").read_bytes()]


def _golden(data: bytes) -> object:
    return read_golden(Content(Path("golden.npz"), data), tiny_pair.CONFIG)


def _onnx(data: bytes) -> object:
    return summarise(file_of("graph.onnx", data))


def _bounds(data: bytes) -> str | None:
    try:
        said = bounds_fault(data)
    except ValueError as error:
        said = str(error)
    if said is not None:
        raise BundleError(said, "Export the model again")
    return said


def _pair_files(*names: str) -> Callable[[], list[bytes]]:
    return lambda: [(_pair() / name).read_bytes() for name in names]


_MODULE = torch.nn.Linear(3, 2)


def _optimizer() -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(_MODULE.parameters(), lr=0.1)
    _MODULE(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


def _saved(document: object, *, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(document, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _weights(data: bytes) -> object:
    return read_weights_file(file_of("weights.pth", data))


def _weights_seeds() -> list[bytes]:
    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}
    document = {"model": state, "epoch": 3, "best": np.float64(0.5), "lr": [0.1], "none": None}
    return [_saved(state), _saved(document), _saved(document, legacy=True)]


def _safetensors(data: bytes) -> object:
    return load_checkpoint(file_of("weights.safetensors", data))


def _safetensors_seeds() -> list[bytes]:
    config = json.dumps(tiny_pair.CONFIG.to_dict())
    return [save({"a.weight": torch.ones(2, 3)}, {CONFIG_KEY: config})]


def _training_state(data: bytes) -> object:
    folder = scratch()
    (folder / "training.pt").write_bytes(data)
    state = load_state(folder, "f")
    assert state is not None
    require_state_of(
        folder,
        state,
        objective=_MODULE,
        optimizer=_optimizer(),
        average=_MODULE.state_dict(),
        iterations=10,
    )
    return state


def _training_state_seeds() -> list[bytes]:
    state = {
        "fingerprint": "f",
        "iteration": 3,
        "objective": _MODULE.state_dict(),
        "optimizer": _optimizer().state_dict(),
        "ema": _MODULE.state_dict(),
    }
    return [_saved(state), _saved(state, legacy=True)]


_PARAM = b"""7767517
5 5
Input                    in0          0 1 in0
MemoryData               constant     0 1 1 0=1 1=1 2=3
BinaryOp                 sub          2 1 in0 1 2 0=1
Convolution              conv         1 1 2 3 0=2 1=1 5=1 6=6
Gemm                     gemm         1 1 3 out0 4=0 5=1 6=1 7=1 8=2 9=2 10=4
"""


def _ncnn(data: bytes) -> object:
    layers = read_param(Content(Path("frame.ncnn.param"), data))
    check_weights(layers, Content(Path("frame.ncnn.bin"), bytes(80)))
    return layers


TARGETS = {
    "manifest": Target(_manifest, _manifest_seeds, share=0.3),
    "golden": Target(_golden, _pair_files("golden.npz"), text=False, share=0.4),
    "onnx": Target(_onnx, _pair_files("frame.onnx", "mask_head.onnx"), text=False, share=0.3),
    "bounds": Target(_bounds, _pair_files("frame.onnx", "mask_head.onnx"), text=False, share=0.3),
    "weights": Target(_weights, _weights_seeds, text=False, share=0.2),
    "safetensors": Target(_safetensors, _safetensors_seeds, text=False, share=0.5),
    "training_state": Target(_training_state, _training_state_seeds, text=False, share=0.1),
    "ncnn": Target(_ncnn, lambda: [_PARAM]),
}
