"""Simplification by onnxsim, believed only when the simplified graph gives the same outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxsim

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import KERNELS, Tensors
from mobileinst_deploy.core.errors import BundleError, VerificationFailed
from mobileinst_deploy.core.native_words import stderr_into
from mobileinst_deploy.pair.instances import match_instances, picks_instances
from mobileinst_deploy.runtimes.onnxruntime import run_graph

_WAY_ROUND = "Export with --no-simplify"


def simplify_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and shapes away; :func:`require_unchanged` tells whether to believe it.

    Args:
        graph: As exported; it stays as it is.

    Raises:
        BundleError: onnxsim failed.
        VerificationFailed: The simplified graph has other outputs.
    """
    try:
        # onnxsim's own check feeds noise; the comparison here uses a real picture instead. What it
        # could not fold it tells by the line, and leaves as it is: nobody need know.
        with stderr_into([]):
            simplified: onnx.ModelProto = onnxsim.simplify(graph, check_n=0)[0]
    except Exception as error:
        # The extension raises plain RuntimeError and onnx's own classes alike.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(f"onnxsim cannot simplify the graph: {reason}", _WAY_ROUND) from error
    _lift_constants(simplified)
    if [v.name for v in simplified.graph.output] != [v.name for v in graph.graph.output]:
        raise VerificationFailed("onnxsim changed the graph's outputs", _WAY_ROUND)
    return simplified


def require_unchanged(
    simplified: bytes,
    graph: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    want: Mapping[str, np.ndarray],
    tolerance: Tolerance,
) -> None:
    """Check that simplification left the outputs as they were.

    Args:
        simplified: The simplified graph, serialised: the very bytes that will be written.
        graph: The same graph before simplification.
        feeds: Real inputs by name.
        want: PyTorch's outputs on them by name.
        tolerance: How far the outputs may be off.

    Raises:
        BundleError: ONNX Runtime cannot load the simplified graph.
        VerificationFailed: It gives other outputs than before.
    """
    got = _run(simplified, list(want), feeds)
    picks = KERNELS in want and picks_instances(graph)
    if _differing(got, want, tolerance, picks) is not None:
        # Only now is the graph before simplification worth a run: it tells who is to blame. When
        # it is the export itself, ``verify`` says so better.
        before = _run(graph.SerializeToString(), list(want), feeds)
        changed = _differing(got, before, tolerance, picks)
        if changed is not None:
            raise VerificationFailed(f"simplification by onnxsim changed {changed}", _WAY_ROUND)


def _lift_constants(graph: onnx.ModelProto) -> None:
    """Make initialisers of Constant nodes, which converters miss; folded weights come as such."""
    nodes = []
    for node in graph.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _run(graph: bytes, names: list[str], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    (outputs,) = run_graph(graph, names, [feeds])
    return outputs


def _differing(got: Tensors, want: Tensors, tolerance: Tolerance, picks: bool) -> str | None:
    """Name of the first output that is not within tolerance; ``picks``: in whatever order."""
    for name, expected in want.items():
        finite = np.isfinite(got[name]).all() and np.isfinite(expected).all()
        if got[name].shape != expected.shape or not finite:
            return name
    if picks:
        matched = match_instances(got, want, tolerance)
        if matched.unlike:
            return KERNELS
        got = matched.outputs
    for name, expected in want.items():
        actual = got[name]
        if (np.abs(actual.astype(np.float64) - expected) > tolerance.allowed(expected)).any():
            return name
    return None
