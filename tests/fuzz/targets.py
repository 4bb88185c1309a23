"""Every reader of what comes from outside, as a function of bytes, with real files to begin from.

The contract is one for all: bytes give a value, or the project's own error in one printable line of
bounded length. Any other exception is a fault; so is taking more than :data:`SECONDS`.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

import tiny_export
import tiny_pair
from latency_records import record_of

from mobileinst_deploy.core.bundle import load_bundle
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.core.files import canonical_sha256
from mobileinst_deploy.core.golden import read_golden
from mobileinst_deploy.core.journal import Journal
from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.core.run_folder import LOG_FILE
from mobileinst_deploy.core.zoo import load_model_toml, zoo_folder
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.measure.node_times import read_profile
from mobileinst_deploy.measure.record import read_records
from mobileinst_deploy.media.pictures import read_picture
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.network.checkpoint import CONFIG_KEY, load_checkpoint
from mobileinst_deploy.network.weights_file import read_weights_file
from mobileinst_deploy.pair.onnx_file import summarise
from mobileinst_deploy.phone.result import BEGIN, read_result
from mobileinst_deploy.runtimes.ncnn.network import check_weights, read_param
from mobileinst_deploy.training.checkpoints import load_state, require_state_of
from mobileinst_deploy.training.config import read_train_config
from mobileinst_deploy.training.curves import draw_curves
from mobileinst_deploy.training.log import TrainingLog
from mobileinst_deploy.workflows.evaluate import _earlier
from mobileinst_deploy.workflows.results_file import read_results

SECONDS = 5.0
MOST_CHARACTERS = 4000
CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        read: Takes the bytes; raises what the reader raises.
        seeds: Real inputs to begin from.
        text: Whether inputs are text, which other mutations suit.
        share: How many of a round's cases it gets, to others' 1: slow readers get fewer.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    text: bool = True
    share: float = 1.0


def survives(target: Target, data: bytes) -> bool:
    """Give a target one input; False where it was refused, as most are.

    Raises:
        Exception: Whatever is no refusal: a fault.
    """
    try:
        target.read(data)
    except MobileInstError as error:
        refused = error
    else:
        return True
    said = str(refused)
    assert said.isprintable(), f"{type(refused).__name__} of several lines: {said!r}"
    assert len(said) <= MOST_CHARACTERS, f"{type(refused).__name__} of {len(said)} characters"
    return False


@cache
def scratch() -> Path:
    """A folder in memory, with two pictures for annotations to speak of."""
    memory = Path("/dev/shm")  # noqa: S108 - a file a case, a million cases
    kept = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    _KEPT.append(kept)
    folder = Path(kept.name)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.zeros((24, 32, 3), np.uint8))
    return folder


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _file(name: str, data: bytes) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


def _texts(*documents: object) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


# Configurations


def _model_toml(data: bytes) -> object:
    return load_model_toml(str(_file("model.toml", data)))


def _train_toml(data: bytes) -> object:
    return read_train_config(_file("train.toml", data))


def _zoo(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(zoo_folder().glob(f"*/{name}"))]


# Annotations

_TRIANGLE = [4.0, 4.0, 20.0, 4.0, 4.0, 16.0]
_RLE = {"size": [24, 32], "counts": [100, 8, 660]}
_CATEGORIES = [{"id": 7, "name": "cat"}, {"id": "3", "name": "dog"}]
_SIZE = {"height": 24, "width": 32}


def _coco(data: bytes) -> object:
    pictures = AnnotatedSet(scratch(), _file("coco.json", data))
    return [pictures.sample(i) for i in range(min(len(pictures), 2))]


def _coco_seeds() -> list[bytes]:
    first = {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [_TRIANGLE]}
    second = {"id": "2", "image_id": 2.0, "category_id": 3, "iscrowd": "1", "segmentation": _RLE}
    images = [{"id": i + 1, "file_name": f"{n}.png", **_SIZE} for i, n in enumerate("ab")]
    both = [{**first, "area": 96.5, "bbox": [4, 4, 16, 12]}, second]
    return _texts(
        {"images": images, "annotations": both, "categories": _CATEGORIES},
        {"images": images, "annotations": None, "categories": _CATEGORIES, "info": {}},
    )


def _ytvis(data: bytes) -> object:
    clips = AnnotatedSet(scratch(), _file("ytvis.json", data), clips=True)
    return [clips.sample(0, t) for t in range(min(clips.length(0), 2))] if len(clips) else []


def _ytvis_seeds() -> list[bytes]:
    video = {"id": 1, "file_names": ["a.png", "b.png"], "length": 2, **_SIZE}
    track = {"id": 1, "video_id": 1, "category_id": 7, "iscrowd": 0, "areas": [96, None]}
    tracks = [{**track, "segmentations": [_RLE, None]}, {**track, "segmentations": [[_TRIANGLE]]}]
    return _texts({"videos": [video], "annotations": tracks[:1], "categories": _CATEGORIES})


# Results for servers


def _results(name: str, listed: Callable[[], list[bytes]], *, clips: bool) -> Callable:
    def read(data: bytes) -> object:
        known = AnnotatedSet(None, _file("listed.json", listed()[0]), clips=clips)
        return read_results(_file(name, data), known, clips=clips)

    return read


def _results_seeds(*, clips: bool) -> list[bytes]:
    mask = encode(np.eye(24, 32) > 0)
    result = {"category_id": 7, "score": 0.5}
    if clips:
        return _texts([{**result, "video_id": 1, "segmentations": [mask, None]}])
    return _texts([{**result, "image_id": 1, "segmentation": mask}])


def _zipped_results() -> list[bytes]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.json", _results_seeds(clips=False)[0])
    return [packed.getvalue()]


# A pair


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
    return summarise(_file("graph.onnx", data))


def _pair_files(*names: str) -> Callable[[], list[bytes]]:
    return lambda: [(_pair() / name).read_bytes() for name in names]


# Weights and states

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
    return read_weights_file(_file("weights.pth", data))


def _weights_seeds() -> list[bytes]:
    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}
    document = {"model": state, "epoch": 3, "best": np.float64(0.5), "lr": [0.1], "none": None}
    return [_saved(state), _saved(document), _saved(document, legacy=True)]


def _safetensors(data: bytes) -> object:
    return load_checkpoint(_file("weights.safetensors", data))


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


# What was measured


def _eval_json(data: bytes) -> object:
    return _earlier(_file("eval.json", data))


def _record(data: bytes) -> object:
    return read_records(_file("latency.json", data))


def _record_seeds() -> list[bytes]:
    document = record_of({1: (10.0, None), 3: (10.0, 6.0)}).to_dict()
    for schedule in document["schedules"]:
        schedule["samples"] = {name: values[:6] for name, values in schedule["samples"].items()}
    return _texts(document, {"schema": 2, "devices": [document]})


def _training_log(data: bytes) -> object:
    path = _file(LOG_FILE, data)
    log = TrainingLog(path, 5)
    log.row(6, "image", 1e-3, {"loss": 0.5}, 1.0, 0.0)
    draw_curves(path.parent)
    return log


def _training_log_seeds() -> list[bytes]:
    path = scratch() / LOG_FILE
    log = TrainingLog(path, 0)
    for iteration in (1, 2, 4):
        log.row(iteration, "image", 1e-3, {"loss": 0.5, "dice": 0.25}, 10.0, 0.1)
    log.evaluation(4, "image", {"AP": 0.3, "AP50": 0.5})
    return [path.read_bytes()]


def _journal(data: bytes) -> object:
    with Journal(scratch() / "journal", {}) as journal:
        journal.path.write_bytes(data)
        found = list(journal.entries(tuple[int, list[str]]))
        journal.add([1, ["a"]])
        assert list(journal.entries()) == [*map(list, found), [1, ["a"]]]
    return found


def _journal_seeds() -> list[bytes]:
    with Journal(scratch() / "journal", {}) as journal:
        journal.path.write_bytes(b"")
        for entry in ([1, ["a", "b"]], [2, []], [3, ["c" * 50]]):
            journal.add(entry)
        return [journal.path.read_bytes()]


def _profile(data: bytes) -> object:
    return read_profile(_file("profile.json", data), "frame", 0)


def _profile_seeds() -> list[bytes]:
    def event(cat: str, name: str, ts: int, dur: int, **args: object) -> dict[str, object]:
        return {"cat": cat, "pid": 1, "tid": 2, "dur": dur, "ts": ts, "ph": "X", "name": name,
                "args": args}  # fmt: skip

    node = event("Node", "/backbone/conv_kernel_time", 12, 5, op_name="Conv", provider="CPU")
    return _texts([event("Session", "model_run", 10, 20), node, {"ph": "M", "name": "x"}])


def _runner_result(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    length = len(text.encode())
    return read_result(f"{BEGIN}\n{text}\n=====MOBILEINST-RESULT-END {length}=====\n", 0)


def _runner_seeds() -> list[bytes]:
    sample = {"role": "frame", "clip": 0, "start_ms": 0.0, "prepare_ms": 0.1, "run_ms": 8.5,
              "cpu": 7, "khz": 2400000}  # fmt: skip
    tensor = {"name": "kernels", "dtype": "float32", "shape": [1, 2, 3], "file": "0.0.bin",
              "bytes": 24, "crc32": f"{zlib.crc32(b'x'):08x}"}  # fmt: skip
    good = {
        "schema": 1, "ok": True, "mode": "bench", "abi": "aarch64",
        "runtime": {"name": "onnxruntime", "version": "1.32.0"},
        "core": {"asked": 7, "affinity": [7]}, "peak_memory_kib": 100,
        "graphs": {"frame": {"load_ms": 2.5}},
        "calls": [{"role": "frame", "prepare_ms": 0.1, "run_ms": 1, "results": [tensor]}],
        "warmups": [sample],
        "schedules": [{"clip_length": 3, "wall_ms": 10.0, "samples": [sample]}],
        "marks": [{"call": 0, "role": "frame", "begin": 0, "end": 1}],
        "profiles": {"frame": "frame_1.json"},
    }  # fmt: skip
    error = {"kind": "affinity", "message": "core 9 refused"}
    return _texts(good, {"schema": 1, "ok": False, "mode": None, "error": error})


# ncnn and pictures

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


def _clip(data: bytes) -> object:
    return list(islice(open_clip(str(_file("clip.avi", data))), 3))


def _clip_seeds() -> list[bytes]:
    made = []
    for code, suffix in (("MJPG", "avi"), ("FFV1", "avi"), ("mp4v", "mp4")):
        path = scratch() / f"seed.{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (32, 24))
        for shade in (0, 90, 180):
            writer.write(np.full((24, 32, 3), shade, np.uint8))
        writer.release()
        made.append(path.read_bytes())
    return made


def _picture(data: bytes) -> object:
    return read_picture(_file("picture", data))


def _picture_seeds() -> list[bytes]:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    suffixes = (".png", ".jpg", ".bmp", ".webp", ".tif")
    made = [cv2.imencode(suffix, image)[1].tobytes() for suffix in suffixes]
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    jpeg = made[1]
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    return [*made, turned]


TARGETS: dict[str, Target] = {
    "model_toml": Target(_model_toml, lambda: _zoo("model.toml")),
    "train_toml": Target(_train_toml, lambda: _zoo("train*.toml")),
    "coco": Target(_coco, _coco_seeds),
    "ytvis": Target(_ytvis, _ytvis_seeds),
    "coco_results": Target(
        _results("r.json", _coco_seeds, clips=False), lambda: _results_seeds(clips=False)
    ),
    "ytvis_results": Target(
        _results("r.json", _ytvis_seeds, clips=True), lambda: _results_seeds(clips=True)
    ),
    "zipped_results": Target(
        _results("r.zip", _coco_seeds, clips=False), _zipped_results, text=False
    ),
    "manifest": Target(_manifest, _manifest_seeds, share=0.3),
    "golden": Target(_golden, _pair_files("golden.npz"), text=False, share=0.4),
    "onnx": Target(_onnx, _pair_files("frame.onnx", "mask_head.onnx"), text=False, share=0.3),
    "weights": Target(_weights, _weights_seeds, text=False, share=0.2),
    "safetensors": Target(_safetensors, _safetensors_seeds, text=False, share=0.5),
    "training_state": Target(_training_state, _training_state_seeds, text=False, share=0.1),
    "eval_json": Target(_eval_json, lambda: _zoo("results/*/eval.json")),
    "latency_record": Target(_record, _record_seeds),
    "training_log": Target(_training_log, _training_log_seeds),
    "journal": Target(_journal, _journal_seeds),
    "profile": Target(_profile, _profile_seeds),
    "runner_result": Target(_runner_result, _runner_seeds),
    "ncnn": Target(_ncnn, lambda: [_PARAM]),
    "picture": Target(_picture, _picture_seeds, text=False, share=0.3),
    "clip": Target(_clip, _clip_seeds, text=False, share=0.3),
}
