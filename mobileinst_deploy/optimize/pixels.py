"""Feature maps stored pixel by pixel: a matrix with one row per pixel and one column per channel.

ONNX stores maps channel by channel. With the channels of a pixel side by side, rearranging pixels
copies whole rows, so that cutting a map into overlapping tiles, the costly half of a Winograd
convolution written in ONNX operators, is one Gather. The rows need not be in raster order: a
convolution leaves them tile by tile, and the next one gathers from wherever they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mobileinst_deploy.optimize.graph import Graph


@dataclass(frozen=True)
class Rows:
    """A map stored pixel by pixel.

    Attributes:
        tensor: Name of the tensor, whose last axis is the channels.
        size: (height, width) of the map.
        channels: Its channels.
        pixels: (rows,) int: which pixel, counted in raster order, each row holds; -1 for rows that
            lie outside the map.
        flat: Whether the tensor is the matrix (rows, channels), or that in another shape.
    """

    tensor: str
    size: tuple[int, int]
    channels: int
    pixels: np.ndarray = field(repr=False)
    flat: bool = True

    @property
    def in_raster_order(self) -> bool:
        """Whether the rows are the pixels, each once, in raster order."""
        return np.array_equal(self.pixels, raster(self.size))

    def row_of(self, absent: int) -> np.ndarray:
        """(height * width + 1,) the row that holds each pixel, and ``absent`` for pixel -1."""
        rows = np.full(self.size[0] * self.size[1] + 1, absent, np.int64)
        inside = self.pixels >= 0
        rows[self.pixels[inside]] = np.flatnonzero(inside)
        rows[-1] = absent
        return rows


def raster(size: tuple[int, int]) -> np.ndarray:
    """The pixels of a map in raster order."""
    return np.arange(size[0] * size[1])


class PixelWriter:
    """Adds nodes that make and use rows to a graph.

    Args:
        graph: Edited in place.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._rows: dict[str, Rows] = {}
        self._in_raster: dict[str, Rows] = {}

    def bind(self, tensor: str, rows: Rows) -> None:
        """Say where the rows of a map (1, C, H, W) are."""
        self._rows[tensor] = rows

    def rows(self, tensor: str) -> Rows:
        """The rows of a map (1, C, H, W), transposed from it if they are nowhere yet."""
        if tensor not in self._rows:
            shape = self.graph.shape(tensor)
            if shape is None:
                raise ValueError(f"{tensor} has no known shape")
            channels, size = shape[1], (shape[2], shape[3])
            # Three axes, so that a Reshape follows: ONNX Runtime would fuse the transposition
            # into a product, where it costs four times as much.
            flat = self.graph.reshape(tensor, (1, channels, size[0] * size[1]))
            name = self.graph.add("Transpose", [flat], f"{tensor}/rows", perm=[0, 2, 1])
            self._rows[tensor] = Rows(name, size, channels, raster(size), flat=False)
        return self._rows[tensor]

    def matrix(self, rows: Rows) -> str:
        """The tensor in the shape (rows, channels)."""
        if rows.flat:
            return rows.tensor
        return self.graph.reshape(rows.tensor, (len(rows.pixels), rows.channels))

    def in_raster(self, rows: Rows) -> Rows:
        """The same map with its rows in raster order, flat."""
        if rows.tensor not in self._in_raster:
            name = self.matrix(rows)
            if not rows.in_raster_order:
                index = self.graph.constant(rows.row_of(-1)[:-1], "pixel_order")
                name = self.graph.add("Gather", [name, index], f"{rows.tensor}/raster", axis=0)
            self._in_raster[rows.tensor] = Rows(name, rows.size, rows.channels, raster(rows.size))
        return self._in_raster[rows.tensor]

    def picture(self, rows: Rows, hint: str) -> str:
        """The map in ONNX's own layout (1, C, H, W)."""
        rows = self.in_raster(rows)
        name = self.graph.add("Transpose", [rows.tensor], f"{hint}/channels", perm=[1, 0])
        return self.graph.reshape(name, (1, rows.channels, *rows.size))
