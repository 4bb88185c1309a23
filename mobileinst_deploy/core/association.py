"""Which of a keyframe's queries are instances, and which known instance each of them continues."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from mobileinst_deploy.core.masks import iou, threshold
from mobileinst_deploy.core.settled import settled

#: A kernel shorter than this points nowhere.
_SHORTEST = 1e-12


def distinct_instances(
    scores: np.ndarray, mask_logits: np.ndarray, lowest: float, duplicate_iou: float
) -> np.ndarray:
    """The queries that show an instance, one query for each.

    Several queries may find one object. The strongest stays; a weaker one goes when its mask
    overlaps that of a stronger one that stays, whatever the classes: one object has one track.

    Args:
        scores: (N,).
        mask_logits: (N, h, w).
        lowest: Lowest score of an instance.
        duplicate_iou: Mask IoU from which the weaker query goes.

    Returns:
        Indices of queries, ascending: unlike the order of scores, that order does not turn over
        when two runtimes differ in the last digit, and nor do the identities given by it.
    """
    strong = np.flatnonzero(scores >= lowest)
    strong = strong[np.argsort(-scores[strong], kind="stable")]
    masks = threshold(mask_logits[strong])
    visible = masks.any(axis=(1, 2))
    strong, masks = strong[visible], masks[visible]
    if not len(strong):
        return strong
    overlap = iou(masks, masks) >= duplicate_iou
    stays = np.zeros(len(strong), bool)
    for i in range(len(strong)):
        stays[i] = not (overlap[i] & stays).any()
    return np.sort(strong[stays])


def unit(kernels: np.ndarray) -> np.ndarray:
    """Kernels (n, D) scaled to length 1; one that is all but zero becomes zeros."""
    # In float64, where no square overflows or vanishes.
    wide = kernels.astype(np.float64)
    length = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    scaled = np.where(length > _SHORTEST, wide / np.maximum(length, _SHORTEST), 0)
    return scaled.astype(kernels.dtype)


def associate(
    known: np.ndarray, found: np.ndarray, similarity: float, nearness: np.ndarray | float = 0.0
) -> np.ndarray:
    """Kernel association: one-to-one by cosine similarity (paper 3.5).

    Args:
        known: (m, D) kernels of length 1 of the instances so far.
        found: (n, D) the same of this keyframe's instances.
        similarity: Lowest cosine of a pair that nothing else speaks for.
        nearness: (n, m), from 0 up: what each pair's masks add to the cosine (ADR 29).

    Returns:
        (n,) int64: for each found one the index of the known one, or -1.
    """
    # What a pair lies above the threshold is its worth, so that a hopeless pair is worth as much as
    # none and never pushes a good pair aside. Settled, since equal kernels are not rare: without
    # that, rounding would choose among pairs that are worth the same.
    cosine = settled(found.astype(np.float64) @ known.T.astype(np.float64))
    worth = np.maximum(cosine + settled(nearness) - settled(similarity), 0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    match = np.full(len(found), -1, np.int64)
    taken = worth[rows, columns] > 0
    match[rows[taken]] = columns[taken]
    return match
