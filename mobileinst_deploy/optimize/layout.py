"""Which maps to store pixel by pixel: a minimum cut over the costs of both layouts.

Every node that can work on rows of pixels has a cost in each layout, and a map that one node leaves
in one layout and another reads in the other costs a transposition. The cheapest choice for the
whole graph at once is a minimum cut between the two labels, found exactly by maximum flow. A
Winograd convolution exists on rows alone, so that the choice of layout is the choice between
convolving directly and by Winograd as well.
"""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from mobileinst_deploy.optimize import cost
from mobileinst_deploy.optimize.graph import Graph
from mobileinst_deploy.optimize.pixel_ops import Operator, operator
from mobileinst_deploy.optimize.pixels import PixelWriter

_UNIT = 100.0  # instructions per unit of capacity, which must be a whole number below 2**31
_NEVER = 1 << 30


def store_by_pixels(graph: Graph, largest_tile: int) -> int:
    """Rewrite the nodes that are cheaper on rows of pixels, Winograd's convolutions among them.

    Args:
        graph: Edited in place.
        largest_tile: Largest side of a Winograd tile; larger ones save more and round more.

    Returns:
        The number of nodes rewritten.
    """
    able = {
        id(node): found
        for node in graph.nodes
        if (found := operator(graph, node, largest_tile)) is not None
    }
    chosen = _cheapest(graph, able)
    if not chosen:
        return 0
    writer = PixelWriter(graph)
    order = [node for node in graph.sorted_nodes() if id(node) in chosen]
    for node in order:
        writer.bind(node.output[0], able[id(node)].write(writer))
    for node in order:
        tensor = node.output[0]
        readers = [r for r in graph.consumers(tensor) if id(r) not in chosen]
        if readers or tensor in graph.pinned:
            graph.redirect(tensor, writer.picture(writer.rows(tensor), tensor))
    graph.remove(order)
    graph.prune()
    return len(order)


def _cheapest(graph: Graph, able: dict[int, Operator]) -> set[int]:
    """The ids of the nodes that a minimum cut puts on rows."""
    if not able:
        return set()
    cut = _Cut()
    for node in graph.nodes:
        if (choice := able.get(id(node))) is not None:
            cut.label(id(node), choice.by_channels, choice.by_pixels)
    for tensor in _maps(graph, able):
        shape = graph.shape(tensor)
        price = cost.TRANSPOSE * prod(shape or (1,)) + cost.NODE
        maker = graph.producer(tensor)
        made = id(maker) if maker is not None and id(maker) in able else _Cut.CHANNELS
        readers = graph.consumers(tensor)
        rows = [r for r in readers if id(r) in able and tensor in able[id(r)].maps]
        fixed = tensor in graph.pinned or len(rows) < len(readers)
        cut.to_rows(made, [id(r) for r in rows], price)
        cut.to_channels(made, [id(r) for r in rows] + [_Cut.CHANNELS] * fixed, price)
    return cut.rows()


def _maps(graph: Graph, able: dict[int, Operator]) -> list[str]:
    """Every tensor that a node able to work on rows reads or makes."""
    nodes: list[NodeProto] = [node for node in graph.nodes if id(node) in able]
    names = (name for node in nodes for name in (*able[id(node)].maps, node.output[0]))
    return [*dict.fromkeys(names)]


class _Cut:
    """A flow network whose minimum cut labels each node with a layout."""

    CHANNELS = -1  # the label of everything that cannot work on rows
    _ROWS = -2

    def __init__(self) -> None:
        self._number: dict[object, int] = {self.CHANNELS: 0, self._ROWS: 1}
        self._edges: dict[tuple[int, int], int] = {}

    def label(self, node: object, by_channels: float, by_pixels: float) -> None:
        """Give the price of each label of a node."""
        self._edge(self.CHANNELS, node, by_pixels)
        self._edge(node, self._ROWS, by_channels)

    def to_rows(self, maker: object, readers: list[int], price: float) -> None:
        """Charge once if any reader works on rows and the maker does not."""
        if readers:
            joint = ("to rows", len(self._number))
            self._edge(maker, joint, price)
            for reader in readers:
                self._edge(joint, reader, None)

    def to_channels(self, maker: object, readers: list[int], price: float) -> None:
        """Charge once if the maker works on rows and any reader does not."""
        if readers and maker != self.CHANNELS:
            joint = ("to channels", len(self._number))
            self._edge(joint, maker, price)
            for reader in readers:
                self._edge(reader, joint, None)

    def rows(self) -> set[int]:
        """The nodes on the side of rows of a minimum cut."""
        count = len(self._number)
        ends = np.array(list(self._edges), np.int64)
        capacity = csr_array(
            (np.array(list(self._edges.values()), np.int32), (ends[:, 0], ends[:, 1])),
            shape=(count, count),
        )
        flow = maximum_flow(capacity, 0, 1).flow
        residual = csr_array(capacity - flow)
        residual.eliminate_zeros()
        reached = set(breadth_first_order(residual, 0, return_predecessors=False).tolist())
        return {
            name
            for name, number in self._number.items()
            if number not in reached and isinstance(name, int) and name not in (-1, -2)
        }

    def _edge(self, start: object, end: object, price: float | None) -> None:
        a = self._number.setdefault(start, len(self._number))
        b = self._number.setdefault(end, len(self._number))
        if a == b:
            return
        units = _NEVER if price is None else min(round(price / _UNIT), _NEVER)
        total = self._edges.get((a, b), 0) + units
        self._edges[a, b] = min(total, _NEVER)
