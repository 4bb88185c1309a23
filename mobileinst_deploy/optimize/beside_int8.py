"""Winograd convolutions in float32 inside graphs whose other convolutions have 8 bits.

On ARM without the newest extensions, an 8-bit kernel does four times the products of a float32 one
in an instruction. Winograd with large tiles does with less than a fifth of the products, so that
wide 3x3 convolutions cost less in float32 than in 8 bits, and lose nothing.
"""

from __future__ import annotations

from math import prod

from onnx import ModelProto

from mobileinst_deploy.optimize import cost
from mobileinst_deploy.optimize.graph import Graph, is_op
from mobileinst_deploy.optimize.pipeline import LARGEST_TILE, optimize_graph
from mobileinst_deploy.optimize.pixel_ops import operator

_PASSES = frozenset({"split-depthwise", "store-by-pixels"})


class WinogradBesideInt8:
    """Decides which convolutions stay in float32 and rewrites them.

    Args:
        largest_tile: Largest side of a Winograd tile.
    """

    def __init__(self, largest_tile: int = LARGEST_TILE) -> None:
        self._largest_tile = largest_tile

    def cheaper_in_float(self, graph: ModelProto) -> frozenset[str]:
        """Names of the 3x3 convolutions that Winograd does in fewer instructions than 8 bits."""
        view = Graph(graph)
        names = set()
        for node in view.nodes:
            weight = view.value(node.input[1]) if is_op(node, "Conv") else None
            if weight is None or weight.shape[2:] != (3, 3):
                continue
            found = operator(view, node, self._largest_tile)
            source, target = view.shape(node.input[0]), view.shape(node.output[0])
            if found is None or source is None or target is None:
                continue
            macs = weight.size * target[2] * target[3]
            in_int8 = cost.convolution_int8(macs, prod(source), prod(target))
            if found.by_pixels < in_int8:
                names.add(node.name)
        return frozenset(names)

    def rewrite(self, graph: ModelProto) -> tuple[ModelProto, tuple[str, ...]]:
        """Rewrite the convolutions that are in float32; returns the passes that did something."""
        rewritten, records = optimize_graph(graph, largest_tile=self._largest_tile, only=_PASSES)
        return rewritten, tuple(r.name for r in records if r.rewrites)
