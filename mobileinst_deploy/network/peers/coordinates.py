"""Where a position is on its map, as two channels."""

from __future__ import annotations

import numpy as np


def coordinates(height: int, width: int) -> np.ndarray:
    """(1, 2, height, width) float32: x, then y, each from -1 to 1."""
    x = np.broadcast_to(np.linspace(-1, 1, width, dtype=np.float32)[None], (height, width))
    y = np.broadcast_to(np.linspace(-1, 1, height, dtype=np.float32)[:, None], (height, width))
    return np.ascontiguousarray(np.stack([x, y])[None])
