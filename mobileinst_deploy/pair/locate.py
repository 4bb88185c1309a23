"""Where two graphs part: the first node whose output leaves tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.records import ParityReport
from mobileinst_deploy.runtimes.onnxruntime import run_graph


@dataclass(frozen=True)
class Divergence:
    """The first node that leaves tolerance.

    Attributes:
        node: Its name.
        op_type: Its operator.
        output: Name of the output that differs.
        max_abs: Largest absolute difference there; None where the shapes differ or a value is not
            finite.
        position: Index of that element; empty where the shapes differ.
        compared: How many tensors were compared before and with it.
    """

    node: str
    op_type: str
    output: str
    max_abs: float | None
    position: tuple[int, ...]
    compared: int

    def __str__(self) -> str:
        size = "not comparable" if self.max_abs is None else f"off by up to {self.max_abs:.3g}"
        where = f" at position {self.position}" if self.position else ""
        return (
            f"node {self.node or '(unnamed)'} ({self.op_type}), output {self.output}: {size}{where}"
        )


def suspects(report: ParityReport) -> list[tuple[Role, int]]:
    """Where to look after a failed verification: (graph, picture) pairs, the likeliest first."""
    pictures: dict[str, int] = {}
    for check in report.checks:
        if not check.passed and "graph" in check.figures:
            pictures.setdefault(check.figures["graph"], check.figures["picture"])
    for tensor in report.tensors:
        if not tensor.passed:
            pictures.setdefault(tensor.graph, tensor.worst[0])
    likeliest = sorted(ROLES, key=lambda role: role not in pictures)
    return [(role, pictures.get(role, 0)) for role in likeliest]


def first_divergence(
    graph: onnx.ModelProto,
    reference: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    tolerance: Tolerance,
) -> Divergence | None:
    """Compare the tensors that two graphs share by name, in the order the first computes them.

    Both run on this machine without ONNX Runtime's own rewriting, so that every node's output is
    there to be seen. An element may be off by ``atol + rtol * max|tensor|``: inside a network, an
    element near zero says little.

    Args:
        graph: The graph under suspicion.
        reference: The same network freshly traced; simplification keeps most tensor names.
        feeds: Inputs by name.
        tolerance: The model's.

    Returns:
        The first divergence, or None when every shared tensor agrees.

    Raises:
        BundleError: The graphs share no tensor, or one of them cannot run.
    """
    known = {name for node in reference.graph.node for name in node.output if name}
    producers = {name: node for node in graph.graph.node for name in node.output}
    shared = [name for name in producers if name in known]
    if not shared:
        raise BundleError(
            "the graphs share no tensor names, so no node can be compared",
            "Locate in the pair that `mobileinst export` wrote, before other tools changed it",
        )
    got = _all_outputs(graph, shared, feeds)
    want = _all_outputs(reference, shared, feeds)
    compared = 0
    for name in shared:
        a, b = got[name], want[name]
        if a.dtype != np.float32 or b.dtype != np.float32:
            continue
        compared += 1
        node = producers[name]
        if a.shape != b.shape:
            return Divergence(node.name, node.op_type, name, None, (), compared)
        difference = np.abs(a.astype(np.float64) - b)
        allowed = float(tolerance.allowed(b).max(initial=tolerance.atol))
        # "Not within" rather than "above", so that NaN is a divergence too.
        outside = ~(difference <= allowed)
        if outside.any():
            largest = np.where(np.isnan(difference), np.inf, difference)
            where = np.unravel_index(int(largest.argmax()), largest.shape)
            position = tuple(int(i) for i in where)
            size = float(largest.max())
            max_abs = size if np.isfinite(size) else None
            return Divergence(node.name, node.op_type, name, max_abs, position, compared)
    return None


def _all_outputs(
    graph: onnx.ModelProto, names: list[str], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(graph)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
    (outputs,) = run_graph(exposed.SerializeToString(), names, [feeds], optimize=False)
    return outputs
