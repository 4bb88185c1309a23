"""ONNX Runtime on one thread, with its failures as sentences."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from forgery import edit_graph, rename

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import ROLES, Call
from mobileinst_deploy.core.errors import BundleError, DeviceError, InputError
from mobileinst_deploy.measure.host import pinned_to_one_core
from mobileinst_deploy.runtimes.onnxruntime import (
    VERSION,
    CpuRunner,
    open_session,
)


def test_sessions_have_one_thread_and_the_cpu_only(exported: ExportBundle):
    session = open_session(exported.graphs["frame"].onnx)
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert onnxruntime.__version__ == VERSION


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(64)])
def test_what_the_runtime_cannot_load_is_refused(tmp_path, content):
    path = tmp_path / "graph.onnx"
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load .*graph\.onnx"):
        open_session(Content(path, content))


def test_a_runner_answers_calls_in_order_by_name(exported: ExportBundle):
    golden = load_golden(exported)
    calls = [Call(role, golden.inputs(role, 1)) for role in (*ROLES, "frame")]
    frame, head, again = CpuRunner(exported).outputs(calls)
    assert set(frame) == {"class_logits", "objectness_logits", "kernels", "mask_logits"}
    assert set(head) == {"mask_logits"}
    assert all(np.array_equal(frame[name], again[name]) for name in frame)


def test_a_graph_is_loaded_when_it_is_asked_for(pair: Path):
    edit_graph(pair, "mask_head", lambda graph: rename(graph, "image", ""))
    runner = CpuRunner(load_bundle(pair))
    with pytest.raises(BundleError, match="cannot load"):
        runner.load_both()


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"image": np.zeros((1, 3, 64, 64), np.float32)},
        {"image": np.zeros((1, 3, 64, 128))},
        {"picture": np.zeros((1, 3, 64, 128), np.float32)},
    ],
)
def test_inputs_that_do_not_fit_are_a_sentence(exported: ExportBundle, inputs):
    runner = CpuRunner(exported)
    with pytest.raises(InputError, match="the frame graph's image takes float32"):
        runner.run("frame", inputs)
    with pytest.raises(DeviceError, match="ONNX Runtime failed in the frame graph: "):
        runner.ready("frame", inputs).compute()


def test_a_measurement_has_one_core_and_gives_the_others_back():
    before = os.sched_getaffinity(0)
    with pinned_to_one_core() as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
