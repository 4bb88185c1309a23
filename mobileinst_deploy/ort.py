"""ONNX Runtime on this machine: one thread, CPU, no telemetry."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import onnxruntime

from mobileinst_deploy.bundle import ExportBundle
from mobileinst_deploy.errors import BundleError, DeviceError
from mobileinst_deploy.specs import ROLES, Call, Role


def open_session(
    graph: Path | bytes, *, optimize: bool = True
) -> onnxruntime.InferenceSession:
    """Load a graph for single-threaded sequential execution on the CPU.

    Args:
        graph: A file, or a serialised model.
        optimize: Whether ONNX Runtime may rewrite the graph; off where every node's own output is
            wanted.

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
    source = graph if isinstance(graph, bytes) else str(graph)
    name = "the graph" if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # The binding raises a family of classes that share no base but Exception.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BundleError(
            f"ONNX Runtime cannot load {name}: {reason}", "Export the model again"
        ) from error


class CpuRunner:
    """Runs an exported pair on this machine; a :class:`~mobileinst_deploy.specs.GraphRunner`.

    Args:
        bundle: The pair; both graphs are loaded at once.
    """

    name = "cpu"
    emulated = False

    def __init__(self, bundle: ExportBundle) -> None:
        self._sessions = {role: open_session(bundle.graphs[role].path) for role in ROLES}
        self._names = {
            role: [output.name for output in session.get_outputs()]
            for role, session in self._sessions.items()
        }

    def run(self, role: Role, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph once.

        Raises:
            DeviceError: ONNX Runtime failed.
        """
        try:
            values = self._sessions[role].run(None, inputs)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceError(
                f"ONNX Runtime failed in the {role} graph: {reason}",
                "Check the inputs' names, dtypes and shapes with `mobileinst inspect`",
            ) from error
        return dict(zip(self._names[role], values, strict=True))

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order; see :class:`~mobileinst_deploy.specs.GraphRunner`."""
        return [self.run(call.role, dict(call.inputs)) for call in calls]


@contextlib.contextmanager
def pinned_to_one_core():
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
