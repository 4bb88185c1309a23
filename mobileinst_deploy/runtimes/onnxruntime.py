"""ONNX Runtime on this machine: one thread, CPU, no telemetry."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import Role, Tensors
from mobileinst_deploy.core.errors import BundleError, DeviceError
from mobileinst_deploy.runtimes.graph_bounds import require_bounded
from mobileinst_deploy.runtimes.host import HostRunner

#: Of the runtime that runs the graphs here, which may differ from the one at export.
VERSION: str = onnxruntime.__version__
_CODES = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |/onnxruntime_src/\S+:\d+ .*?\) ")


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
        DeviceError: It failed in the midst of a run.
    """
    session = open_session(graph, optimize=optimize)
    for feed in feeds:
        yield compute(session, names, feed)


def compute(
    session: onnxruntime.InferenceSession, names: Sequence[str], feed: Tensors
) -> dict[str, np.ndarray]:
    """Run a session once.

    Returns:
        The outputs by name.

    Raises:
        DeviceError: ONNX Runtime failed in the midst.
    """
    try:
        return dict(zip(names, session.run(list(names), dict(feed)), strict=True))
    except Exception as error:
        raise DeviceError(
            f"ONNX Runtime failed in a graph: {_reason(error)}",
            "Verify the pair with `mobileinst verify`, or export the model again",
        ) from error


class CpuRunner(HostRunner):
    """ONNX Runtime here.

    Args:
        bundle: The pair.

    Raises:
        BundleError: A graph asks for too much memory.
    """

    runtime = f"onnxruntime {VERSION}"

    def __init__(self, bundle: ExportBundle) -> None:
        super().__init__(bundle)
        require_bounded(bundle)
        self._sessions: dict[Role, onnxruntime.InferenceSession] = {}

    def load(self, role: Role) -> onnxruntime.InferenceSession:
        """The session of a graph, loaded when it is first asked for.

        Raises:
            BundleError: ONNX Runtime cannot load it.
        """
        if role not in self._sessions:
            self._sessions[role] = open_session(self.bundle.graphs[role].onnx)
        return self._sessions[role]

    def ready(self, role: Role, inputs: Tensors) -> _ReadyRun:
        """Bind inputs and outputs; see :class:`~mobileinst_deploy.runtimes.host.HostRunner`."""
        return _ReadyRun(self.load(role), role, inputs)


class _ReadyRun:
    """Inputs bound where they lie, outputs left to the runtime's allocator."""

    def __init__(self, session: onnxruntime.InferenceSession, role: Role, inputs: Tensors) -> None:
        self._session = session
        self._role = role
        self._names = [output.name for output in session.get_outputs()]
        # What is bound is only borrowed: the arrays live as long as this.
        self._inputs = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        with self._told():
            self._binding = session.io_binding()
            for name, array in self._inputs.items():
                self._binding.bind_cpu_input(name, array)
            for name in self._names:
                self._binding.bind_output(name)

    def compute(self) -> None:
        """See :class:`~mobileinst_deploy.runtimes.host.ReadyRun`."""
        with self._told():
            self._session.run_with_iobinding(self._binding)

    def outputs(self) -> dict[str, np.ndarray]:
        """See :class:`~mobileinst_deploy.runtimes.host.ReadyRun`."""
        return dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime failed in the {self._role} graph: {_reason(error)}",
                "Check the inputs' names, dtypes and shapes with `mobileinst inspect`",
            ) from error


def _reason(error: Exception) -> str:
    """The first line of what ONNX Runtime says, without its codes and places in its own source."""
    lines = str(error).strip().splitlines()
    line = _CODES.sub("", lines[0]) if lines else ""
    return line.strip().rstrip(".") or type(error).__name__
