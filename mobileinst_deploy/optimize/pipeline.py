"""The passes in their order, and what each of them did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto

from mobileinst_deploy.optimize.depthwise import split_depthwise
from mobileinst_deploy.optimize.graph import Graph
from mobileinst_deploy.optimize.layout import store_by_pixels
from mobileinst_deploy.optimize.products import absorb_shifts, merge_transposes
from mobileinst_deploy.optimize.winograd import TILES

Pass = Callable[[Graph], int]
LARGEST_TILE = max(TILES)


@dataclass(frozen=True)
class PassRecord:
    """What one pass did to one graph.

    Attributes:
        name: Of the pass.
        rewrites: How many places it changed.
        nodes: Nodes in the graph after it.
    """

    name: str
    rewrites: int
    nodes: int


def passes(largest_tile: int = LARGEST_TILE) -> dict[str, Pass]:
    """All passes by name, in the order in which they run; each changes something in the zoo.

    What ONNX Runtime does itself when it loads a graph, such as folding constants, is left to it.

    Args:
        largest_tile: Largest side of a Winograd tile, from :data:`.winograd.TILES`; 0 leaves all
            maps stored by channels, and so no convolution is computed by Winograd.
    """
    chosen: dict[str, Pass] = {
        "absorb-shifts": absorb_shifts,
        "merge-transposes": merge_transposes,
        "split-depthwise": split_depthwise,
    }
    if largest_tile:
        chosen["store-by-pixels"] = lambda graph: store_by_pixels(graph, largest_tile)
    return chosen


def optimize_graph(
    model: ModelProto,
    *,
    largest_tile: int = LARGEST_TILE,
    only: frozenset[str] | None = None,
) -> tuple[ModelProto, list[PassRecord]]:
    """Rewrite a graph so that ONNX Runtime executes fewer instructions for it on ARM.

    Same inputs, outputs and operator set, standard operators only; nothing is computed less
    exactly than by another order of float32 sums, save what ``largest_tile`` admits.

    Args:
        model: Any graph of opset 13 or later; left as it is.
        largest_tile: See :func:`passes`.
        only: Names of the passes to run; None runs all.

    Returns:
        The new graph, and one record for each pass that ran, in order.

    Raises:
        BundleError: The graph is of an older operator set, or contradicts itself.
    """
    graph = Graph(model)
    records = []
    for name, apply in passes(largest_tile).items():
        if only is not None and name not in only:
            continue
        rewrites = apply(graph)
        if rewrites:
            graph.refresh_shapes()
        records.append(PassRecord(name, rewrites, len(graph.nodes)))
    return graph.model(), records
