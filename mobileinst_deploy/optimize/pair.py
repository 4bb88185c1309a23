"""Optimise an exported pair, and believe no rewrite that its own pictures do not bear out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.errors import BundleError, VerificationFailed
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.optimize.pipeline import PassRecord, optimize_graph
from mobileinst_deploy.pair.comparison import compare_tensor
from mobileinst_deploy.pair.instances import match_instances, picks_instances
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.rewritten import write_derived
from mobileinst_deploy.runtimes.graph_bounds import require_bounded
from mobileinst_deploy.runtimes.onnxruntime import run_graph

#: Largest Winograd tiles to try, in order: the larger, the faster and the less exact. 0 is none.
TILE_LIMITS = (8, 6, 4, 0)
#: The part of the model's tolerance that rewriting may use up; the rest is the export's own.
SHARE = 0.5

Outputs = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class GraphReport:
    """What became of one graph.

    Attributes:
        role: Which.
        passes: What each pass did, in order.
        largest_tile: Largest Winograd tile whose rounding the tolerance admits.
        max_abs: Largest difference from the graph before, over the golden pictures, in logits.
        excess: Largest ``|new - old| / (atol + rtol |old|)``; at most :data:`SHARE`.
        seconds: How long it took, trials included.
    """

    role: Role
    passes: tuple[PassRecord, ...]
    largest_tile: int
    max_abs: float
    excess: float
    seconds: float


def optimize_pair(
    bundle: ExportBundle, folder: Path, *, progress: Progress = silent
) -> tuple[ExportBundle, tuple[GraphReport, ...]]:
    """Write an optimised pair: the same signatures, golden data and tolerance.

    Each graph gets the largest Winograd tiles with which its outputs stay within half the model's
    tolerance of what they were.

    Args:
        bundle: The pair to start from.
        folder: Where to write; may be the pair's own folder.
        progress: Told of each graph.

    Returns:
        The new pair, and what became of its graphs.

    Raises:
        BundleError: The pair was optimised before, or a graph cannot be read or rewritten.
        VerificationFailed: A graph's outputs change whichever tiles are used.
        OutputError: The folder cannot be written or holds something else.
    """
    if bundle.optimized:
        raise BundleError(
            f"{bundle.folder} has been through {', '.join(bundle.optimized)} already",
            "Start from the pair that `mobileinst export` wrote",
        )
    require_bounded(bundle)
    golden = load_golden(bundle)
    graphs: dict[Role, onnx.ModelProto] = {}
    reports = []
    for done, role in enumerate(ROLES):
        progress("optimise", done, len(ROLES))
        plain = load_graph(bundle.graphs[role].onnx)
        graphs[role], report = optimize_checked(role, plain, golden, bundle.tolerance)
        reports.append(report)
    progress("optimise", len(ROLES), len(ROLES))
    steps = dict.fromkeys(p.name for report in reports for p in report.passes if p.rewrites)
    return write_derived(bundle, folder, graphs, tuple(steps)), tuple(reports)


def optimize_checked(
    role: Role,
    plain: onnx.ModelProto,
    golden: Golden,
    tolerance: Tolerance,
    rewrite: Callable[..., tuple[onnx.ModelProto, list[PassRecord]]] = optimize_graph,
) -> tuple[onnx.ModelProto, GraphReport]:
    """Optimise one graph with the largest tiles that the tolerance admits.

    Args:
        role: Which graph it is.
        plain: As exported.
        golden: Pictures to compare on.
        tolerance: Of the model.
        rewrite: What optimises; another one in tests.

    Raises:
        VerificationFailed: The outputs change whichever tiles are used.
    """
    started = time.monotonic()
    want = _run(plain, role, golden)
    picks = role == "frame" and picks_instances(plain)
    for limit in TILE_LIMITS:
        graph, records = rewrite(plain, largest_tile=limit)
        got = _run(graph, role, golden)
        if picks and all(np.isfinite(a).all() for run in got for a in run.values()):
            pairs = zip(got, want, strict=True)
            got = [match_instances(new, old, tolerance).outputs for new, old in pairs]
        max_abs, excess, worst = _difference(role, got, want, tolerance)
        if excess <= SHARE:
            seconds = time.monotonic() - started
            return graph, GraphReport(role, tuple(records), limit, max_abs, excess, seconds)
    raise VerificationFailed(
        f"optimising the {role} graph changes its {worst} by up to {max_abs:.3g}, even without"
        " Winograd convolutions",
        "Use the pair as it was exported",
    )


def _run(graph: onnx.ModelProto, role: Role, golden: Golden) -> Outputs:
    names = [output.name for output in graph.graph.output]
    feeds = (golden.inputs(role, index) for index in range(len(golden.images)))
    return list(run_graph(graph.SerializeToString(), names, feeds))


def _difference(
    role: Role, got: Outputs, want: Outputs, tolerance: Tolerance
) -> tuple[float, float, str]:
    """Largest absolute difference, largest excess, and the output where that is."""
    worst = (0.0, 0.0, "")
    for name in want[0]:
        new, old = (np.concatenate([run[name] for run in runs]) for runs in (got, want))
        if not np.isfinite(new).all():
            return float("inf"), float("inf"), name
        parity = compare_tensor(role, name, new, old, tolerance)
        excess, where = max((worst[1], worst[2]), (parity.max_excess, name))
        worst = (max(worst[0], parity.max_abs), excess, where)
    return worst
