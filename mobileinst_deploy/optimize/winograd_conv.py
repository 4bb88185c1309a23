"""A 3x3 convolution of rows of pixels, written as Winograd's F(m, 3) in standard operators.

Both axes are transformed in turn, by a Gather that cuts the map into overlapping tiles and one
matrix product over all tiles and channels at once. Between them stands one product of (tiles,
channels) with (channels, channels) for each of the n1 * n2 positions within a tile. Nothing is ever
transposed: the index of the second Gather also brings the position to the front, where the batched
product wants it.

The filters are stored as they were trained, and two constant products turn them into Winograd's
form: ONNX Runtime folds these when it loads the graph, so that the file does not grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mobileinst_deploy.optimize import cost
from mobileinst_deploy.optimize.pixels import PixelWriter, Rows
from mobileinst_deploy.optimize.winograd import TAPS, TILES, transform

Size = tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """A 3x3, stride 1 convolution.

    Attributes:
        in_channels: C.
        out_channels: O.
        size: (height, width) of the input.
        pads: Zeros around it: top, left, bottom, right.
    """

    in_channels: int
    out_channels: int
    size: Size
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)

    @property
    def out_size(self) -> Size:
        """(height, width) of the output."""
        top, left, bottom, right = self.pads
        height, width = self.size
        return height + top + bottom - TAPS + 1, width + left + right - TAPS + 1


@dataclass(frozen=True)
class Plan:
    """How to compute a problem.

    Attributes:
        tile: Outputs per tile, (rows, columns).
        instructions: Predicted, on one ARM core.
    """

    tile: Size
    instructions: float


@lru_cache(maxsize=1024)
def plan(problem: Problem, largest_tile: int) -> Plan:
    """The cheapest tile with no side above ``largest_tile``."""
    sides = [m for m in TILES if m <= largest_tile]
    plans = [Plan((h, w), predict(problem, (h, w))) for h in sides for w in sides]
    return min(plans, key=lambda p: (p.instructions, p.tile))


def predict(problem: Problem, tile: Size) -> float:
    """Instructions that :func:`write` costs with this tile."""
    c, o = problem.in_channels, problem.out_channels
    height, width = problem.size
    down, across = _tiles(problem, tile)
    tiles = down * across
    n_down, n_across = tile[0] + TAPS - 1, tile[1] + TAPS - 1
    rows = height + 1
    return (
        cost.CONCAT * height * width * c
        + cost.gather(n_across * rows * across, c)
        + cost.gemm(n_across, n_across, rows * across * c)
        + cost.gather(n_down * n_across * down, across * c)
        + cost.gemm(n_down, n_down, n_across * tiles * c)
        + n_down * n_across * cost.gemm(tiles, c, o)
        + cost.gemm(tile[0], n_down, n_across * tiles * o)
        + 0.6 * tile[0] * n_across * tiles * o  # the bias, copied into place beforehand
        + tile[0] * cost.gemm(tile[1], n_across, tiles * o)
        + 16 * cost.NODE
    )


def predict_direct(problem: Problem) -> float:
    """Instructions of the same problem as a Conv node."""
    c, o = problem.in_channels, problem.out_channels
    return cost.convolution(1, c, o, (TAPS, TAPS), problem.out_size, 1)


def write(
    writer: PixelWriter,
    source: Rows,
    weight: np.ndarray,
    bias: np.ndarray,
    problem: Problem,
    tile: Size,
    hint: str,
) -> Rows:
    """Add the nodes of one convolution.

    Args:
        writer: Of the graph.
        source: The input, in any order of rows.
        weight: (O, C, 3, 3) float32.
        bias: (O,) float32.
        problem: Its shapes.
        tile: Outputs per tile.
        hint: What to name its tensors after.

    Returns:
        The output's rows, tile by tile, as (rows of a tile, columns of a tile, tiles, O).
    """
    graph = writer.graph
    c, o = problem.in_channels, problem.out_channels
    down, across = _tiles(problem, tile)
    tiles = down * across
    vertical, horizontal = transform(tile[0]), transform(tile[1])
    n_down, n_across = vertical.products, horizontal.products
    rows = problem.size[0] + 1

    def matrix(value: np.ndarray, name: str) -> str:
        return graph.constant(value.astype(np.float32), name)

    def add(op: str, inputs: list[str], part: str, **attributes: object) -> str:
        return graph.add(op, inputs, f"{hint}/{part}", **attributes)

    zero = matrix(np.zeros((1, c)), "zero_row")
    padded = add("Concat", [writer.matrix(source), zero], "padded", axis=0)
    columns = graph.constant(_column_index(problem, source, across, tile[1]), "tile_columns")
    cut = add("Gather", [padded, columns], "columns", axis=0)
    cut = graph.reshape(cut, (n_across, rows * across * c))
    cut = add("MatMul", [matrix(horizontal.input, "winograd_input"), cut], "columns_in")
    cut = graph.reshape(cut, (n_across * rows, across * c))
    lines = graph.constant(_row_index(problem, down, tile[0], n_across), "tile_rows")
    cut = add("Gather", [cut, lines], "rows", axis=0)
    cut = graph.reshape(cut, (n_down, n_across * tiles * c))
    cut = add("MatMul", [matrix(vertical.input, "winograd_input"), cut], "rows_in")
    cut = graph.reshape(cut, (n_down * n_across, tiles, c))

    # Stored as nine (C, O) matrices; G1 g G2^T then is one product from the left.
    taps = matrix(weight.transpose(2, 3, 1, 0).reshape(TAPS * TAPS, c * o), f"{hint}/filter")
    spread = matrix(np.kron(vertical.filter, horizontal.filter), "winograd_filter")
    filters = graph.reshape(add("MatMul", [spread, taps], "filters"), (n_down * n_across, c, o))
    product = add("MatMul", [cut, filters], "product")

    product = graph.reshape(product, (n_down, n_across * tiles * o))
    shift = matrix(horizontal.constant[:, None, None] * bias, f"{hint}/bias")
    every_tile = graph.constant(np.array([n_across, tiles, o], np.int64), "shape")
    shift = add("Expand", [shift, every_tile], "bias_per_tile")
    shift = graph.reshape(shift, (n_across * tiles * o,))
    output = add("Gemm", [matrix(vertical.output, "winograd_output"), product, shift], "rows_out")
    # A 1x1 convolution over the position within a tile: the runtime fuses a ReLU after it.
    output = graph.reshape(output, (tile[0], n_across, tiles, o))
    kernel = matrix(horizontal.output[:, :, None, None], "winograd_output")
    output = add("Conv", [output, kernel], "columns_out", kernel_shape=[1, 1])
    pixels = _output_pixels(problem, tile)
    return Rows(output, problem.out_size, o, pixels, flat=False)


def _tiles(problem: Problem, tile: Size) -> Size:
    height, width = problem.out_size
    return math.ceil(height / tile[0]), math.ceil(width / tile[1])


def _column_index(problem: Problem, source: Rows, across: int, m: int) -> np.ndarray:
    """(n, height + 1, across): the row of the padded source at each position of each tile.

    The last of the ``height + 1`` lines is zero throughout: the padding above and below.
    """
    height, width = problem.size
    zero = len(source.pixels)
    row_of = source.row_of(zero)
    column = np.arange(across) * m + np.arange(m + TAPS - 1)[:, None] - problem.pads[1]
    inside = (column >= 0) & (column < width)
    line = np.arange(height + 1)
    pixel = line[None, :, None] * width + column[:, None, :]
    known = inside[:, None, :] & (line < height)[None, :, None]
    return row_of[np.where(known, pixel, -1)]


def _row_index(problem: Problem, down: int, m: int, n_across: int) -> np.ndarray:
    """(n, n_across, down): line of the map, of each position along the other axis."""
    height = problem.size[0]
    line = np.arange(down) * m + np.arange(m + TAPS - 1)[:, None] - problem.pads[0]
    line = np.where((line >= 0) & (line < height), line, height)
    return np.arange(n_across)[None, :, None] * (height + 1) + line[:, None, :]


def _output_pixels(problem: Problem, tile: Size) -> np.ndarray:
    height, width = problem.out_size
    down, across = _tiles(problem, tile)
    line = np.arange(tile[0])[:, None] + np.arange(down) * tile[0]
    column = np.arange(tile[1])[:, None] + np.arange(across) * tile[1]
    line, column = line[:, None, :, None], column[None, :, None, :]
    pixel = np.where((line < height) & (column < width), line * width + column, -1)
    return pixel.reshape(-1)
