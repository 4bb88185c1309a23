"""ONNX Runtime on this machine: one thread, CPU, no telemetry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import Role, Tensors
from mobileinst_deploy.core.errors import BundleError, DeviceError
from mobileinst_deploy.runtimes.host import HostRunner

#: Of the runtime that runs the graphs here, which may differ from the one at export.
VERSION: str = onnxruntime.__version__


def open_session(
    graph: bytes | Content, *, optimize: bool = True, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a graph for single-threaded sequential execution on the CPU.

    Args:
        graph: A serialised model, or the content of a file.
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
    data, name = (graph, "the graph") if isinstance(graph, bytes) else (graph.data, graph.path)
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # The binding raises a family of classes that share no base but Exception.
        raise BundleError(
            f"ONNX Runtime cannot load {name}: {_reason(error)}", "Export the model again"
        ) from error


def run_graph(
    graph: bytes,
    names: Sequence[str],
    feeds: Iterable[Tensors],
    *,
    optimize: bool = True,
) -> Iterator[dict[str, np.ndarray]]:
    """Load a graph and run it on inputs, one after the other.

    Args:
        graph: A serialised model.
        names: The outputs wanted.
        feeds: Inputs by name, for every run.
        optimize: As for :func:`open_session`.

    Yields:
        The outputs of each run by name.

    Raises:
        BundleError: ONNX Runtime cannot load it.
    """
    session = open_session(graph, optimize=optimize)
    for feed in feeds:
        yield dict(zip(names, session.run(list(names), dict(feed)), strict=True))


class CpuRunner(HostRunner):
    """ONNX Runtime here.

    Args:
        bundle: The pair.
    """

    runtime = f"onnxruntime {VERSION}"

    def __init__(self, bundle: ExportBundle) -> None:
        super().__init__(bundle)
        self._sessions: dict[Role, onnxruntime.InferenceSession] = {}

    def load(self, role: Role) -> onnxruntime.InferenceSession:
        """The session of a graph, loaded when it is first asked for.

        Raises:
            BundleError: ONNX Runtime cannot load it.
        """
        if role not in self._sessions:
            self._sessions[role] = open_session(self.bundle.graphs[role].onnx)
        return self._sessions[role]

    def run(self, role: Role, inputs: Tensors) -> dict[str, np.ndarray]:
        """Run one graph once.

        Raises:
            BundleError: ONNX Runtime cannot load it.
            DeviceError: ONNX Runtime failed.
        """
        session = self.load(role)
        try:
            values = session.run(None, dict(inputs))
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime failed in the {role} graph: {_reason(error)}",
                "Check the inputs' names, dtypes and shapes with `mobileinst inspect`",
            ) from error
        return {v.name: array for v, array in zip(session.get_outputs(), values, strict=True)}


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
