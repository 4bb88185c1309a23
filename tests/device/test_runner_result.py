"""What a device says is untrusted: it becomes a checked record or a sentence, never a traceback."""

from __future__ import annotations

import contextlib
import copy
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from onnx import TensorProto, helper

from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.measure.node_times import BETWEEN, PART_OF_PATH, parts_of, read_profile
from mobileinst_deploy.phone.result import BEGIN, RunnerResult, read_result, read_tensors

TENSOR = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
SAMPLE = {
    "role": "frame",
    "clip": 0,
    "start_ms": 0.0,
    "prepare_ms": 0.1,
    "run_ms": 8.5,
    "cpu": 7,
    "khz": 2400000,
}
GOOD: dict[str, Any] = {
    "schema": 1,
    "ok": True,
    "mode": "outputs",
    "abi": "aarch64",
    "runtime": {"name": "onnxruntime", "version": "1.32.0"},
    "core": {"asked": 7, "affinity": [7]},
    "peak_memory_kib": 100,
    "graphs": {"frame": {"load_ms": 2.5}},
    "calls": [
        {
            "role": "frame",
            "prepare_ms": 0.1,
            "run_ms": 1,
            "results": [
                {
                    "name": "kernels",
                    "dtype": "float32",
                    "shape": [1, 2, 3],
                    "file": "0.0.bin",
                    "bytes": 24,
                    "crc32": f"{zlib.crc32(TENSOR.tobytes()):08x}",
                }
            ],
        }
    ],
    "warmups": [SAMPLE],
    "schedules": [{"clip_length": 3, "wall_ms": 10.0, "samples": [SAMPLE]}],
    "marks": [{"call": 0, "role": "frame", "begin": 0, "end": 1}],
    "profiles": {"frame": "frame_1.json"},
}


def printed(document: object) -> str:
    text = json.dumps(document)
    return f"{BEGIN}\n{text}\n=====MOBILEINST-RESULT-END {len(text)}=====\n"


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return document


class TestReadResult:
    def test_a_good_result_becomes_a_record(self):
        result = read_result(printed(GOOD), 0)
        assert result.affinity == (7,)
        assert result.load_ms == {"frame": 2.5}
        assert result.schedules[0].samples[0].khz == 2400000
        assert result.files == ("0.0.bin", "frame_1.json")

    def test_what_stands_around_it_does_not_matter(self):
        noise = "WARNING: linker: bla\n\x00\xff" + BEGIN + "\nnot this\n"
        assert read_result(noise + printed(GOOD) + "bye\n", 0).mode == "outputs"

    @pytest.mark.parametrize(("field", "value"), [("cpu", None), ("khz", None)])
    def test_what_a_phone_does_not_tell_is_none(self, field: str, value: None):
        result = read_result(printed(changed(("warmups", 0, field), value)), 0)
        assert getattr(result.warmups[0], field) is None

    @pytest.mark.parametrize(
        ("exit_code", "stderr", "says"),
        [
            (137, "", r"exit code 137 \(killed, 9\).*run out of memory"),
            (-9, "", r"killed, 9"),
            (139, "", r"exit code 139 \(crashed, 11\)"),
            (134, "terminate called\nabort\n\n", r"aborted, 6\); its last words: abort"),
            (127, "sh: ./ld-linux-aarch64.so.1: not found", "exit code 127.*not found.*prepare"),
            (1, "CANNOT LINK EXECUTABLE \x1b[31m", r"LINK EXECUTABLE \\x1b\[31m"),
            (0, "", "no result and ended with exit code 0"),
        ],
    )
    def test_no_result_tells_how_it_ended(self, exit_code: int, stderr: str, says: str):
        with pytest.raises(DeviceError, match=f"(?s)the runner printed no result.*{says}|{says}"):
            read_result("", exit_code, stderr)

    @pytest.mark.parametrize("cut", [40, 200, -3, -45])
    def test_half_a_result_is_no_result(self, cut: int):
        with pytest.raises(DeviceError, match=r"only half a result.*killed"):
            read_result(printed(GOOD)[:cut], 137)

    def test_lost_bytes_in_the_middle_are_noticed(self):
        text = printed(GOOD)
        with pytest.raises(DeviceError, match="its length differs"):
            read_result(text.replace('"aarch64"', '"arm"'), 0)

    @pytest.mark.parametrize("document", [[], 3, {"schema": 2, "ok": True}, {"schema": 1}, None])
    def test_another_document_is_refused(self, document: object):
        with pytest.raises(DeviceError, match="cannot be read"):
            read_result(printed(document), 0)

    def test_deep_nesting_does_not_overflow(self):
        text = "[" * 200000
        with pytest.raises(DeviceError, match="cannot be read"):
            read_result(f"{BEGIN}\n{text}\n=====MOBILEINST-RESULT-END {len(text)}=====", 0)

    def test_success_with_a_bad_exit_code_is_not_success(self):
        with pytest.raises(DeviceError, match="reported success but ended with exit code 139"):
            read_result(printed(GOOD), 139)

    @pytest.mark.parametrize(
        ("kind", "next_step"),
        [
            ("affinity", "--core"),
            ("memory", "smaller model"),
            ("files", "free space"),
            ("library", "prepare"),
            ("new", "Report this"),
        ],
    )
    def test_a_failure_becomes_its_message_and_a_next_step(self, kind: str, next_step: str):
        failure = {"kind": kind, "message": "core 9\x07 refused"}
        document = {"schema": 1, "ok": False, "mode": None, "error": failure}
        with pytest.raises(DeviceError) as caught:
            read_result(printed(document), 14)
        assert caught.value.cause == "the runner says: core 9\\x07 refused"
        assert next_step in caught.value.next_step

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("mode",), "dance"),
            (("abi",), 3),
            (("core",), None),
            (("core", "affinity"), [True]),
            (("core", "affinity"), [1.5]),
            (("core", "asked"), "7"),
            (("graphs",), {"face": {"load_ms": 1}}),
            (("graphs", "frame"), []),
            (("graphs", "frame", "load_ms"), -1),
            (("graphs", "frame", "load_ms"), 10**400),
            (("graphs", "frame", "load_ms"), True),
            (("graphs", "frame", "load_ms"), float("nan")),
            (("graphs", "frame", "load_ms"), float("inf")),
            (("calls", 0, "role"), "mask"),
            (("calls", 0, "results", 0, "file"), "../../etc/passwd"),
            (("calls", 0, "results", 0, "file"), "/etc/passwd"),
            (("calls", 0, "results", 0, "file"), ".."),
            (("calls", 0, "results", 0, "file"), ""),
            (("calls", 0, "results", 0, "dtype"), "object"),
            (("calls", 0, "results", 0, "bytes"), 25),
            (("calls", 0, "results", 0, "shape"), [1] * 9),
            (("calls", 0, "results", 0, "shape"), [0]),
            (("calls", 0, "results", 0, "shape"), [2**40, 2**40]),
            (("calls", 0, "results"), {}),
            (("warmups", 0, "run_ms"), None),
            (("warmups", 0, "khz"), "fast"),
            (("schedules", 0), 1),
            (("marks", 0, "begin"), 0.5),
            (("profiles", "frame"), "a/b.json"),
        ],
    )
    def test_a_field_that_is_not_what_it_should_be_is_named(
        self, path: tuple[str | int, ...], value: object
    ):
        with pytest.raises(
            DeviceError, match=r"the runner's result (is not understood|cannot be read): "
        ):
            read_result(printed(changed(path, value)), 0)

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_no_document_leads_to_a_traceback(self, data: st.DataObject):
        document, place = copy.deepcopy(GOOD), None
        place = document
        wild = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(sorted({*GOOD, *SAMPLE})), inner, max_size=3)
            ),
            max_leaves=8,
        )
        while True:
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            place[key] = data.draw(wild)
            break
        with contextlib.suppress(DeviceError):
            assert isinstance(read_result(printed(document), 0), RunnerResult)


class TestReadTensors:
    def test_come_back_as_arrays(self, tmp_path: Path):
        (tmp_path / "0.0.bin").write_bytes(TENSOR.tobytes())
        ((name, array),) = read_tensors(read_result(printed(GOOD), 0), tmp_path)[0].items()
        assert name == "kernels"
        np.testing.assert_array_equal(array, TENSOR)
        array[0] = 1  # and are the caller's own

    @pytest.mark.parametrize("data", [None, b"", TENSOR.tobytes()[:-4], bytes(24)])
    def test_a_file_that_was_lost_cut_or_corrupted_on_the_way_is_noticed(
        self, tmp_path: Path, data: bytes | None
    ):
        if data is not None:
            (tmp_path / "0.0.bin").write_bytes(data)
        with pytest.raises(DeviceError, match="kernels did not arrive as the runner wrote it"):
            read_tensors(read_result(printed(GOOD), 0), tmp_path)


def event(cat: str, name: str, ts: float, dur: float, op: str = "Conv") -> dict[str, Any]:
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "ph": "X", "args": {"op_name": op}}


def node(path: str, ts: float, dur: float, op: str = "Conv") -> dict[str, Any]:
    return event("Node", path + "_kernel_time", ts, dur, op)


class TestProfile:
    def write(self, folder: Path, events: object) -> Path:
        path = folder / "frame_1.json"
        path.write_text(json.dumps(events))
        return path

    def test_sums_by_operator_and_part_and_leaves_the_warmups_out(self, tmp_path: Path):
        run = [
            node("/Sub", 1, 10, "Sub"),
            node("/backbone/stem/Conv", 11, 40),
            node("ReorderOutput", 51, 5, "ReorderOutput"),  # amid the backbone
            node("/backbone/last/Conv", 56, 20),
            node("Reorder_2", 76, 2, "ReorderOutput"),  # between two parts
            node("/mask_decoder/enhance_x5/gate/Conv", 78, 10),
            node("/mask_decoder/p4/Conv", 88, 5),
            node("/MatMul", 93, 8, "MatMul"),
        ]
        events = []
        for k in range(3):
            shift, slow = 1000 * k, 7 if k == 0 else 1
            events.append(event("Session", "model_run", shift, 110 * slow))
            events += [e | {"ts": e["ts"] + shift, "dur": e["dur"] * slow} for e in run]
        profile = read_profile(self.write(tmp_path, events), "frame", warmups=1)
        assert profile.runs == 2
        assert profile.run_ms == pytest.approx(0.110)
        parts = {s.name: (round(s.ms, 6), s.nodes) for s in profile.parts}
        assert parts == {
            "backbone": (0.065, 3),
            "normalisation": (0.010, 1),
            "enhancer": (0.010, 1),
            "masks": (0.008, 1),
            "mask decoder": (0.005, 1),
            BETWEEN: (0.002, 1),
        }
        operators = {s.name: round(s.share, 4) for s in profile.operators}
        assert operators == {"Conv": 0.75, "Sub": 0.1, "MatMul": 0.08, "ReorderOutput": 0.07}

    def test_nodes_that_simplifying_renamed_are_placed_by_their_tensors(self, tmp_path: Path):
        stage = "/instance_decoder/stages.1/"
        nodes = [
            helper.make_node("Relu", ["image"], ["a"], "/backbone/Relu"),
            helper.make_node("Relu", ["a"], ["_1"], "Gemm_1"),  # by what takes it
            helper.make_node("Relu", ["_1"], ["_2"], "Gemm_2"),
            helper.make_node("Relu", ["_2"], [f"{stage}q/Add_output_0"], "Gemm_3"),  # by its tensor
            helper.make_node("Relu", [f"{stage}q/Add_output_0"], ["_3"], f"{stage}Add"),
            helper.make_node("Relu", ["_3"], ["_4"], "Gemm_4"),  # by the output it leads to
            helper.make_node("Relu", ["_4"], ["class_logits"], "Reshape_5"),
            helper.make_node("Relu", ["a"], ["_6"], "Gemm_6"),  # two parts take it
            helper.make_node("Add", ["_6", "_3"], ["_7"], "/mask_decoder/Add"),
            helper.make_node("Add", ["_6", "_7"], ["mask_logits"], "/MatMul"),
        ]
        info = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [1])
            for n in ("class_logits", "mask_logits")
        ]
        graph = helper.make_model(helper.make_graph(nodes, "frame", [], info))
        local = "instance decoder, local stage"
        assert parts_of(graph, ("global", "local")) == {
            "/backbone/Relu": "backbone",
            "Gemm_1": local,
            "Gemm_2": local,
            "Gemm_3": local,
            f"{stage}Add": local,
            "Gemm_4": "instance decoder, heads",
            "Reshape_5": "instance decoder, heads",
            "/mask_decoder/Add": "mask decoder",
            "/MatMul": "masks",
        }
        run = [event("Session", "model_run", 0, 9), node("Gemm_3", 1, 2), node("Gemm_6", 3, 1)]
        parts = parts_of(graph, ("global", "local"))
        profile = read_profile(self.write(tmp_path, run), "frame", 0, parts)
        assert profile.parts[0].name == local

    def test_runs_of_other_nodes_are_no_profile(self, tmp_path: Path):
        events = [
            *(event("Session", "model_run", 0, 9), node("/Sub", 1, 2)),
            *(event("Session", "model_run", 10, 9), node("/Add", 11, 2)),
        ]
        with pytest.raises(DeviceError, match="not all of the same nodes"):
            read_profile(self.write(tmp_path, events), "frame", 0)

    def test_calls_the_parts_as_the_mac_count_does(self):
        from mobileinst_deploy.network.macs import PARTS

        assert {part.split(",")[0] for part in PART_OF_PATH.values()} < set(PARTS)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[",
            b"{}",
            b"\xff",
            b"[" * 100000,
            b'[{"ph":"X"}]',
            b'[{"ph":"X","cat":"Node","name":"a","ts":"b"}]',
            b'[{"ph":"X","cat":"Node","name":"a","ts":1,"dur":NaN}]',
        ],
    )
    def test_garbage_is_a_sentence(self, tmp_path: Path, content: bytes):
        path = tmp_path / "frame_1.json"
        path.write_bytes(content)
        with pytest.raises(DeviceError, match=r"frame_1\.json cannot be read"):
            read_profile(path, "frame", 0)

    def test_a_profile_without_runs_is_a_sentence(self, tmp_path: Path):
        with pytest.raises(DeviceError, match="no complete run after 2 warm-ups"):
            read_profile(self.write(tmp_path, []), "frame", 2)


def test_every_role_is_known_to_the_reader():
    for role in ROLES:
        assert read_result(printed(changed(("graphs",), {role: {"load_ms": 1}})), 0).load_ms == {
            role: 1.0
        }
