"""How far two arrays are apart: as numbers, and as the masks that an app would draw."""

from __future__ import annotations

import numpy as np

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.records import TensorParity


def compare_tensor(
    graph: str, name: str, got: np.ndarray, want: np.ndarray, tolerance: Tolerance
) -> TensorParity:
    """Compare one output over all pictures with its reference.

    Args:
        graph: Role of the graph, for the record.
        name: Name of the output, for the record.
        got: (P, ...), finite.
        want: Of the same shape, finite.
        tolerance: What is allowed.
    """
    difference = np.abs(got.astype(np.float64) - want)
    size = np.abs(want.astype(np.float64))
    excess = difference / np.maximum(tolerance.allowed(want), 1e-300)
    worst = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    significant = size > tolerance.atol
    relative = difference[significant] / size[significant]
    lowest = min(cosine(g, w) for g, w in zip(got, want, strict=True))
    max_excess = float(excess[worst])
    return TensorParity(
        graph=graph,
        tensor=name,
        max_abs=float(difference.max()),
        max_rel=float(relative.max(initial=0.0)),
        cosine=lowest,
        max_excess=max_excess,
        worst=worst,
        passed=max_excess <= 1 and lowest >= tolerance.min_cosine,
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine similarity of two arrays, flattened; 1 when both are zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    if norms == 0:
        return 1.0 if not x.any() and not y.any() else 0.0
    return min(1.0, float(x @ y) / norms)


def mask_ious(got: np.ndarray, want: np.ndarray, edge: float = Tolerance.edge_logit) -> np.ndarray:
    """IoU of masks thresholded from logits, per mask; 1 where both are empty.

    Args:
        got: Logits (..., h, w).
        want: Those of the reference, of the same shape.
        edge: Where the reference is within this of 0, a pixel counts as on the same side: one pixel
            decided by rounding would otherwise ruin a mask of a few.

    Returns:
        (...,) float64 in [0, 1].
    """
    b = want > 0
    a = np.where(np.abs(want) <= edge, b, got > 0)
    union = (a | b).sum((-2, -1))
    intersection = (a & b).sum((-2, -1))
    ious: np.ndarray = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    return ious
