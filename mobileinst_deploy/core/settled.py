"""Numbers that decide something, rounded first: what is equal but for rounding is equal everywhere.

Two runtimes add in another order, and two machines round the last digit another way. Where a
decision hangs on such a number, a tie would be broken here one way and there another.
"""

from __future__ import annotations

import numpy as np

_STEPS = 2.0**20


def settled(values: np.ndarray | float) -> np.ndarray:
    """Values to the nearest 2**-20, computed in float64; sums and differences of them are exact.

    Args:
        values: Of any shape, at most 2**20 in size.

    Example:
        >>> bool(settled(0.1 + 0.2) == settled(0.3))
        True
    """
    steps: np.ndarray = np.rint(np.asarray(values, np.float64) * _STEPS)
    return steps / _STEPS
