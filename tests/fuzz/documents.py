"""Readers of recipes, models' descriptions and what was measured."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

from latency_records import record_of

from fuzz.target import Target, file_of, scratch, texts, zoo_files
from mobileinst_deploy.core.journal import Journal
from mobileinst_deploy.core.run_folder import LOG_FILE
from mobileinst_deploy.core.zoo import load_model_toml
from mobileinst_deploy.measure.node_times import read_profile
from mobileinst_deploy.measure.record import read_records
from mobileinst_deploy.phone.result import BEGIN, read_result
from mobileinst_deploy.training.config import read_train_config
from mobileinst_deploy.training.curves import draw_curves
from mobileinst_deploy.training.log import TrainingLog
from mobileinst_deploy.workflows.evaluate import _earlier


def _model_toml(data: bytes) -> object:
    return load_model_toml(str(file_of("model.toml", data)))


def _train_toml(data: bytes) -> object:
    return read_train_config(file_of("train.toml", data))


def _eval_json(data: bytes) -> object:
    return _earlier(file_of("eval.json", data))


def _record(data: bytes) -> object:
    return read_records(file_of("latency.json", data))


def _record_seeds() -> list[bytes]:
    document = record_of({1: (10.0, None), 3: (10.0, 6.0)}).to_dict()
    for schedule in document["schedules"]:
        schedule["samples"] = {name: values[:6] for name, values in schedule["samples"].items()}
    return texts(document, {"schema": 2, "devices": [document]})


def _training_log(data: bytes) -> object:
    path = file_of(LOG_FILE, data)
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
    return read_profile(file_of("profile.json", data), "frame", 0)


def _profile_seeds() -> list[bytes]:
    def event(cat: str, name: str, ts: int, dur: int, **args: object) -> dict[str, object]:
        return {"cat": cat, "pid": 1, "tid": 2, "dur": dur, "ts": ts, "ph": "X", "name": name,
                "args": args}  # fmt: skip

    node = event("Node", "/backbone/conv_kernel_time", 12, 5, op_name="Conv", provider="CPU")
    return texts([event("Session", "model_run", 10, 20), node, {"ph": "M", "name": "x"}])


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
    return texts(good, {"schema": 1, "ok": False, "mode": None, "error": error})


TARGETS = {
    "model_toml": Target(_model_toml, lambda: zoo_files("model.toml")),
    "train_toml": Target(_train_toml, lambda: zoo_files("train*.toml")),
    "eval_json": Target(_eval_json, lambda: zoo_files("results/*/eval.json")),
    "latency_record": Target(_record, _record_seeds),
    "training_log": Target(_training_log, _training_log_seeds),
    "journal": Target(_journal, _journal_seeds),
    "profile": Target(_profile, _profile_seeds),
    "runner_result": Target(_runner_result, _runner_seeds),
}
