"""Winograd's short convolutions: F(m, 3) gives m outputs of a three-tap filter by m + 2 products.

Built from evaluation points by the Cook-Toom construction (S. Winograd, "Arithmetic Complexity of
Computations", 1980) in exact rational numbers. In two dimensions, with a transform for each axis,
``Y = A1^T [ (G1 g G2^T) * (B1^T d B2) ] A2``.

The points decide how much rounding grows. These came out least of all sets of small fractions, by
the error measured on convolutions of 128 channels; the whole numbers and halves of textbooks are
within a tenth of them for m = 6 and up to five times worse elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import numpy as np

TAPS = 3
_POINTS = {
    2: "0 1 -1",
    3: "0 5/4 -5/4 1/2",
    4: "0 5/8 -5/8 3/2 -3/2",
    5: "0 7/8 -7/8 7/4 -7/4 3/8",
    6: "0 1 -1 2 -2 1/2 -1/2",
    8: "0 2/5 -2/5 5/6 -5/6 6/5 -6/5 12/5 -12/5",
}
#: The m for which points are known.
TILES = tuple(_POINTS)


@dataclass(frozen=True)
class Transform:
    """F(m, 3) along one axis; n = m + 2.

    Attributes:
        outputs: m.
        output: A^T, (m, n), float64.
        filter: G, (n, 3), float64.
        input: B^T, (n, n), float64.
        constant: (n,) float64, the v of least norm with A^T v = 1: added to the products, it adds
            one to every output.
    """

    outputs: int
    output: np.ndarray = field(repr=False)
    filter: np.ndarray = field(repr=False)
    input: np.ndarray = field(repr=False)
    constant: np.ndarray = field(repr=False)

    @property
    def products(self) -> int:
        """The number n of products per tile."""
        return self.outputs + TAPS - 1


@lru_cache(maxsize=len(TILES))
def transform(outputs: int) -> Transform:
    """F(outputs, 3), for one of :data:`TILES`."""
    points = tuple(Fraction(point) for point in _POINTS[outputs].split())
    output = [[p**i for p in points] + [Fraction(int(i == outputs - 1))] for i in range(outputs)]
    filters: list[list[Fraction]] = []
    inputs: list[list[Fraction]] = []
    for j, point in enumerate(points):
        others = [*points[:j], *points[j + 1 :]]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        filters.append([point**k / scale for k in range(TAPS)])
        inputs.append([*_polynomial(others), Fraction(0)])
    filters.append([Fraction(0)] * (TAPS - 1) + [Fraction(1)])
    inputs.append(_polynomial(points))
    a, g, b = (np.array(matrix, np.float64) for matrix in (output, filters, inputs))
    # A power of two moved between factors costs no accuracy, and keeps the transformed input near
    # the size of the input.
    balance = 2.0 ** np.round(np.log2(np.abs(b).max(axis=1, keepdims=True)))
    constant = np.linalg.pinv(a) @ np.ones(outputs)
    return Transform(outputs, a, g * balance, b / balance, constant)


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, lowest power first, of the monic polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        times_x, times_root = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(times_x, times_root, strict=True)]
    return coefficients
