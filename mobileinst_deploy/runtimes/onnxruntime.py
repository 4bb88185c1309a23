"""ONNX Runtime on this machine: one thread, CPU, no telemetry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import ROLES, Call, Role
from mobileinst_deploy.core.errors import BundleError, DeviceError

#: Of the runtime that runs the graphs here, which may differ from the one at export.
VERSION: str = onnxruntime.__version__


def open_session(
    graph: Path | bytes, *, optimize: bool = True, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a graph for single-threaded sequential execution on the CPU.

    Args:
        graph: A file, or a serialised model.
        optimize: Whether ONNX Runtime may rewrite the graph; off where every node's own output is
            wanted.
        profile: Where ONNX Runtime's profiler writes; it adds a time and ``.json`` to the name.

    Raises:
        BundleError: It is not a graph that ONNX Runtime can load.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    source = graph if isinstance(graph, bytes) else str(graph)
    name = "the graph" if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # The binding raises a family of classes that share no base but Exception.
        raise BundleError(
            f"ONNX Runtime cannot load {name}: {_reason(error)}", "Export the model again"
        ) from error


class CpuRunner:
    """Runs an exported pair here; a :class:`~mobileinst_deploy.core.contract.GraphRunner`.

    Args:
        bundle: The pair. A graph is loaded when it is first asked for, so that a broken one can be
            described by what is wrong with it before the runtime refuses it.
    """

    name = "cpu"
    runtime = f"onnxruntime {VERSION}"
    emulated = False

    def __init__(self, bundle: ExportBundle) -> None:
        self._bundle = bundle
        self._sessions: dict[Role, onnxruntime.InferenceSession] = {}

    def load(self) -> None:
        """Load both graphs now: a measurement must not begin with that.

        Raises:
            BundleError: ONNX Runtime refuses one.
        """
        for role in ROLES:
            self._session(role)

    def _session(self, role: Role) -> onnxruntime.InferenceSession:
        if role not in self._sessions:
            self._sessions[role] = open_session(self._bundle.graphs[role].path)
        return self._sessions[role]

    def run(self, role: Role, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph once.

        Raises:
            BundleError: ONNX Runtime cannot load it.
            DeviceError: ONNX Runtime failed.
        """
        session = self._session(role)
        try:
            values = session.run(None, inputs)
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime failed in the {role} graph: {_reason(error)}",
                "Check the inputs' names, dtypes and shapes with `mobileinst inspect`",
            ) from error
        return {v.name: array for v, array in zip(session.get_outputs(), values, strict=True)}

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order; see :class:`~mobileinst_deploy.core.contract.GraphRunner`."""
        return [self.run(call.role, dict(call.inputs)) for call in calls]


@contextlib.contextmanager
def pinned_to_one_core() -> Iterator[int | None]:
    """Keep this thread on one core that it may use, and give the old affinity back after.

    Yields:
        The core's number, read back from the kernel, or None where the system has no affinity.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    # The last allowed core: the first one takes most interrupts.
    os.sched_setaffinity(0, {max(before)})
    try:
        (core,) = os.sched_getaffinity(0)
        yield core
    finally:
        os.sched_setaffinity(0, before)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
