"""What the runner does: the C++ program itself, natively, under sanitizers."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import native
import numpy as np
import odd_graphs
import onnxruntime
import pytest
import tiny_pair

from mobileinst_deploy.core.contract import Call, Role
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.measure.node_times import read_profile
from mobileinst_deploy.phone.plan import OUTPUT_FOLDER, Plan, plan_calls, reuse_pattern
from mobileinst_deploy.phone.result import read_tensors
from mobileinst_deploy.runtimes.onnxruntime import open_session

PICTURES = [tiny_pair.picture(0), tiny_pair.picture(1)]
BENCH = Plan(
    "bench", reuse_pattern(tiny_pair.SPECS, PICTURES), warmups=2, runs=3, clip_lengths=(1, 3)
)
OUTPUTS = Plan("outputs", plan_calls(tiny_pair.SPECS, [Call("frame", {"image": PICTURES[0]})]))


def kernels(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(1, count, tiny_pair.D)).astype(np.float32)


def on_this_machine(graphs: dict[Role, Path], call: Call) -> dict[str, np.ndarray]:
    session = open_session(graphs[call.role].read_bytes())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(call.inputs)), strict=True))


class TestOutputs:
    def test_are_those_of_the_python_binding_for_any_number_of_kernels(self, tmp_path: Path):
        graphs = tiny_pair.build(tmp_path)
        calls = [
            Call("frame", {"image": PICTURES[0]}),
            Call("frame", {"image": PICTURES[1] * 0.5}),
            *(Call("mask_head", {"image": PICTURES[1], "kernels": kernels(n)}) for n in (1, 3, 5)),
        ]
        plan = Plan("outputs", plan_calls(tiny_pair.SPECS, calls))
        done = native.start(tmp_path, plan, graphs=graphs)
        got = read_tensors(done.result, done.folder / OUTPUT_FOLDER)
        for call, arrays in zip(calls, got, strict=True):
            want = on_this_machine(graphs, call)
            assert list(arrays) == list(want)
            for name, array in want.items():
                np.testing.assert_array_equal(arrays[name], array, err_msg=f"{call.role} {name}")

    def test_a_reuse_frame_takes_the_kernels_of_the_latest_keyframe(self, tmp_path: Path):
        graphs = tiny_pair.build(tmp_path)
        first, reuse = reuse_pattern(tiny_pair.SPECS, PICTURES)
        second, _ = reuse_pattern(tiny_pair.SPECS, PICTURES[::-1])
        done = native.start(tmp_path, Plan("outputs", (first, reuse, second, reuse)), graphs=graphs)
        got = read_tensors(done.result, done.folder / OUTPUT_FOLDER)
        for keyframe, masks in ((got[0], got[1]), (got[2], got[3])):
            call = Call("mask_head", {"image": PICTURES[1], "kernels": keyframe["kernels"]})
            want = on_this_machine(graphs, call)["mask_logits"]
            np.testing.assert_array_equal(masks["mask_logits"], want)
        assert not np.array_equal(got[1]["mask_logits"], got[3]["mask_logits"])

    def test_the_result_file_is_the_result_on_stdout(self, tmp_path: Path):
        done = native.start(tmp_path, OUTPUTS)
        text = (done.folder / OUTPUT_FOLDER / "result.json").read_text()
        assert text in done.stdout
        document = json.loads(text)
        assert document["runtime"]["version"] == onnxruntime.__version__
        assert document["ok"] is True


class TestBench:
    def test_runs_the_real_pattern_for_each_clip_length(self, tmp_path: Path):
        result = native.start(tmp_path, BENCH).result
        assert [s.role for s in result.warmups] == ["frame", "mask_head"] * 2
        assert [s.clip_length for s in result.schedules] == [1, 3]
        for schedule in result.schedules:
            length = schedule.clip_length
            clip = ["frame"] + ["mask_head"] * (length - 1)
            assert [s.role for s in schedule.samples] == clip * 3
            assert [s.clip for s in schedule.samples] == [
                c for c in range(3) for _ in range(length)
            ]

    def test_goes_on_until_both_runs_and_seconds_are_reached(self, tmp_path: Path):
        plan = replace(BENCH, seconds=0.2, clip_lengths=(2,))
        (schedule,) = native.start(tmp_path, plan).result.schedules
        assert 200 <= schedule.wall_ms < 1000
        assert len(schedule.samples) > 2 * plan.runs
        assert len(schedule.samples) % 2 == 0, "whole clips only"

    def test_times_inference_apart_from_preparation(self, tmp_path: Path):
        (schedule,) = native.start(tmp_path, replace(BENCH, clip_lengths=(2,))).result.schedules
        begun = [s.start_ms for s in schedule.samples]
        assert begun == sorted(begun)
        for sample, following in zip(schedule.samples, schedule.samples[1:], strict=False):
            assert sample.prepare_ms > 0
            assert sample.run_ms > 0
            assert sample.start_ms + sample.prepare_ms + sample.run_ms <= following.start_ms

    def test_pins_itself_and_reads_the_affinity_back(self, tmp_path: Path):
        core = max(os.sched_getaffinity(0))
        result = native.start(tmp_path, replace(BENCH, core=core)).result
        assert result.core == core
        assert result.affinity == (core,)
        assert {s.cpu for s in result.schedules[0].samples} == {core}

    def test_leaves_the_affinity_alone_when_no_core_is_asked_for(self, tmp_path: Path):
        result = native.start(tmp_path, BENCH).result
        assert result.core is None
        assert set(result.affinity) == os.sched_getaffinity(0)

    def test_live_kernels_are_handed_to_every_reuse_frame(self, tmp_path: Path):
        calls = reuse_pattern(tiny_pair.SPECS, PICTURES, kernels(2))
        assert calls[1].results[0].shape == (1, 2, 8, 8)
        assert native.start(tmp_path, replace(BENCH, calls=calls)).result.schedules

    def test_tells_of_its_progress_on_stderr(self, tmp_path: Path):
        stderr = native.start(tmp_path, BENCH).stderr
        assert re.match(r"progress\twarm-up\t1.0\t2.0\n", stderr)

    def test_sends_nothing_and_leaves_nothing_in_the_home_folder(self, tmp_path: Path):
        native.start(tmp_path, BENCH)
        assert list((tmp_path / "home").iterdir()) == []


class TestCountAndProfile:
    def test_count_marks_every_run_after_the_warmups(self, tmp_path: Path):
        result = native.start(tmp_path, replace(BENCH, mode="count")).result
        assert [(m.role, m.begin, m.end) for m in result.marks] == [
            (role, 2 * k, 2 * k + 1) for k, role in enumerate(["frame", "mask_head"] * 3)
        ]
        assert len(result.calls) == len(result.marks)

    def test_profile_gives_the_share_of_each_operator_and_part(self, tmp_path: Path):
        done = native.start(tmp_path, replace(BENCH, mode="profile"))
        result = done.result
        assert set(result.profiles) == {"frame", "mask_head"}
        for role, name in result.profiles.items():
            profile = read_profile(done.folder / OUTPUT_FOLDER / name, role, BENCH.warmups)
            assert profile.runs == BENCH.runs
            assert {s.name for s in profile.operators} >= {"Conv"}
            for shares in (profile.operators, profile.parts):
                assert sum(s.share for s in shares) == pytest.approx(1)
                assert all(s.ms > 0 and s.nodes > 0 for s in shares)


def corrupt_input(text: str) -> str:
    return re.sub(r"\tuint8\t[0-9a-f]{8}\n", "\tuint8\t00000000\n", text, count=1)


def of_another_size(text: str) -> str:
    return text.replace("1,3,64,64", "1,3,32,64")


@pytest.mark.parametrize(
    ("edit", "kind", "exit_code", "says"),
    [
        (lambda t: t.replace("libonnxruntime", "absent"), "library", 11, "cannot be opened"),
        (lambda t: t.replace("frame.onnx", "absent.onnx"), "graph", 12, "frame graph"),
        (lambda t: t.replace("class_logits", "scores"), "contract", 13, "no output named scores"),
        (lambda t: t.replace("input\timage", "input\tphoto"), "contract", 13, "no input named"),
        (lambda t: re.sub(r"result\tkernels.*\n", "", t), "contract", 13, "4 outputs"),
        (lambda t: t.replace("1,5,8,8", "1,5,8,9"), "contract", 13, "the plan says"),
        (
            lambda t: t.replace("kernels\tfloat32", "kernels\tint32"),
            "contract",
            13,
            "the plan says int32",
        ),
        (of_another_size, "contract", 13, "1,3,64,64, and the plan says float32 1,3,32,64"),
        (lambda t: t.replace("core\tany", "core\t1000"), "affinity", 14, "core 1000 refused"),
        (lambda t: re.sub(r"in-\w+-\d+", "absent", t), "files", 15, "absent.*cannot be opened"),
        (corrupt_input, "files", 15, "differs from its CRC-32"),
        (lambda t: t.replace("folder\tout", "folder\tplan.txt/out"), "files", 15, "plan.txt/out"),
        (lambda t: t.replace("folder\tout", "folder\t/proc/out"), "files", 15, "/proc/out"),
    ],
)
def test_each_failure_has_a_kind_an_exit_code_and_a_sentence(
    tmp_path: Path, edit: Callable[[str], str], kind: str, exit_code: int, says: str
):
    done = native.start(tmp_path, OUTPUTS, edit=edit)
    assert done.exit_code == exit_code
    assert f'"kind":"{kind}"' in done.stdout
    assert f'"{OUTPUTS.mode}"' in done.stdout
    with pytest.raises(DeviceError, match=f"(?s)the runner says: .*({says})"):
        _ = done.result


def test_a_library_that_is_not_onnx_runtime_is_refused(tmp_path: Path):
    done = native.start(tmp_path, OUTPUTS, library=native.find_library("m"))
    assert done.exit_code == 11
    assert "has no OrtGetApiBase" in done.stdout


def test_a_truncated_graph_is_refused(tmp_path: Path):
    graphs = tiny_pair.build(tmp_path)
    whole = graphs["frame"].read_bytes()
    graphs["frame"].write_bytes(whole[: len(whole) // 2])
    done = native.start(tmp_path, OUTPUTS, graphs=graphs)
    assert done.exit_code == 12


def test_an_input_file_that_became_shorter_is_refused(tmp_path: Path):
    def shorten(text: str) -> str:
        name = re.search(r"in-\w+-\d+.bin", text)
        assert name
        path = tmp_path / "work" / name[0]
        path.write_bytes(path.read_bytes()[:-1])
        return text

    done = native.start(tmp_path, OUTPUTS, edit=shorten)
    assert done.exit_code == 15
    assert "12287 bytes instead of 12288" in done.stdout


@pytest.mark.parametrize("mode", ["outputs", "bench", "count", "profile"])
def test_nan_is_flagged_in_every_mode_and_outputs_keeps_the_tensors(tmp_path: Path, mode: str):
    graphs = tiny_pair.build(tmp_path, mask_scale=float("nan"))
    plan = OUTPUTS if mode == "outputs" else replace(BENCH, mode=mode)
    done = native.start(tmp_path, plan, graphs=graphs)
    assert done.exit_code == 17
    with pytest.raises(DeviceError, match=r"values of class_logits from the frame graph are NaN"):
        _ = done.result
    if mode == "outputs":
        data = (done.folder / OUTPUT_FOLDER / "3.bin").parent
        assert np.isnan(np.fromfile(data / "0.3.bin", "<f4")).any()


def test_a_run_beyond_the_limit_ends_itself(tmp_path: Path):
    graphs = tiny_pair.build(tmp_path)
    graphs["frame"] = odd_graphs.endless(graphs["frame"])
    done = native.start(tmp_path, replace(OUTPUTS, limit_seconds=1), graphs=graphs)
    assert done.exit_code == 18
    with pytest.raises(DeviceError, match="the limit of 1 s was reached"):
        _ = done.result


def test_a_full_disk_is_a_sentence_and_leaves_no_half_tensor(tmp_path: Path):
    graphs = tiny_pair.build(tmp_path)

    def no_file_above_64_bytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    done = native.start(tmp_path, OUTPUTS, graphs=graphs, before=no_file_above_64_bytes)
    assert done.exit_code == 15
    assert "0.2.bin cannot be written: File too large" in done.stdout
    left = sorted(p.name for p in (done.folder / OUTPUT_FOLDER).iterdir())
    assert left == ["0.0.bin", "0.1.bin"]


def test_a_plan_that_is_not_there_is_a_result_too(tmp_path: Path):
    for arguments in ([], [str(tmp_path / "absent")], [str(tmp_path)]):
        done = subprocess.run(
            [native.program(), *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 10
        assert '"kind":"plan"' in done.stdout


def test_crc_is_that_of_zlib(tmp_path: Path):
    done = native.start(tmp_path, OUTPUTS)
    for tensor in done.result.calls[0].results:
        data = (done.folder / OUTPUT_FOLDER / tensor.file).read_bytes()
        assert tensor.crc32 == f"{zlib.crc32(data):08x}"


@pytest.mark.device
@pytest.mark.slow
def test_the_declared_interface_is_the_official_one(tmp_path: Path):
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and shutil.which("g++")):
        pytest.skip("the official header comes by apt-get, which is not here")
    fetch = subprocess.run(
        [native.SOURCES / "ort-headers", tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if fetch.returncode:
        pytest.skip(f"the official header cannot be fetched: {fetch.stderr.strip()[-200:]}")
    check = native.SOURCES / "tests" / "abi_check.cc"

    def compiles(source: Path) -> bool:
        command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
        command += [f"-I{tmp_path}", str(source)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert compiles(check)
    moved = tmp_path / "moved" / "tests" / check.name
    for path in (check, native.SOURCES / "src" / "ort_abi.h"):
        copy = tmp_path / "moved" / path.relative_to(native.SOURCES)
        copy.parent.mkdir(parents=True)
        copy.write_text(path.read_text().replace("void* to_12[2]", "void* to_12[3]"))
    assert not compiles(moved), "the check cannot fail"
