"""Simplification by onnxsim, believed only when the simplified graph gives the same outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxsim

from mobileinst_deploy.errors import BundleError, VerificationFailed
from mobileinst_deploy.ort import open_session
from mobileinst_deploy.specs import Tolerance


def simplify_graph(
    graph: onnx.ModelProto, feeds: Mapping[str, np.ndarray], tolerance: Tolerance
) -> onnx.ModelProto:
    """Fold constants and shapes away.

    Args:
        graph: As exported.
        feeds: Real inputs by name; both graphs are run on them.
        tolerance: How far the outputs may move.

    Returns:
        The simplified graph; the given one stays as it is.

    Raises:
        BundleError: onnxsim failed.
        VerificationFailed: The simplified graph gives other outputs.
    """
    way_round = "Export with --no-simplify"
    try:
        # onnxsim's own check feeds noise; the comparison below uses a real picture instead.
        simplified, _ = onnxsim.simplify(graph, check_n=0)
    except Exception as error:
        # The extension raises plain RuntimeError and onnx's own classes alike.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(f"onnxsim cannot simplify the graph: {reason}", way_round) from error
    names = [output.name for output in graph.graph.output]
    if [output.name for output in simplified.graph.output] != names:
        raise VerificationFailed("onnxsim changed the graph's outputs", way_round)
    want = open_session(graph.SerializeToString()).run(names, dict(feeds))
    got = open_session(simplified.SerializeToString()).run(names, dict(feeds))
    for name, expected, actual in zip(names, want, got, strict=True):
        same = actual.shape == expected.shape and np.allclose(
            actual, expected, rtol=tolerance.rtol, atol=tolerance.atol
        )
        if not same:
            raise VerificationFailed(f"simplification by onnxsim changed {name}", way_round)
    return simplified
