"""What a network's own evaluation does to its scores, outside the graphs.

The C library does the same, decision for decision (``mobileinst_scores``).

Set-based networks weigh a score by how sure the mask is of itself. Dense ones find an object many
times and suppress the weaker finds. Tracking needs none of it: it keeps one instance per object
whatever the network.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from mobileinst_deploy.core.masks import iou, threshold
from mobileinst_deploy.core.needs import Description, Needs
from mobileinst_deploy.core.settled import settled

#: SOLOv2's matrix suppression: how fast an overlapped find decays, and how many are looked at.
SIGMA = 2.0
MOST_PAIRS = 500
#: IoU of the bounding boxes of two masks of one class from which the weaker one goes.
BOX_IOU = 0.6


def settled_scores(
    description: Description, scores: np.ndarray, mask_logits: np.ndarray
) -> np.ndarray:
    """Scores as the network's authors evaluate them.

    Args:
        description: Of the network; MobileInst's scores stay as they are.
        scores: (N, C) in [0, 1].
        mask_logits: (N, h, w), 0 the border of a mask.

    Returns:
        (N, C); 0 where a find is suppressed or is none of the :data:`MOST_PAIRS` strongest.
    """
    if not isinstance(description, Needs):
        return scores
    # In float64, and maskness settled, so that the order of finds is the same in C.
    scores = np.asarray(scores, np.float64)
    if description.maskness:
        scores = scores * settled(maskness(mask_logits, description.mask_shift))[:, None]
    if description.suppression == "none":
        return scores
    rows, labels = np.divmod(np.argsort(-scores, axis=None, kind="stable"), scores.shape[1])
    rows, labels = rows[:MOST_PAIRS], labels[:MOST_PAIRS]
    found = scores[rows, labels]
    masks = threshold(mask_logits)
    if description.suppression == "matrix":
        found = found * matrix_decay(iou(masks, masks)[np.ix_(rows, rows)], labels)
    else:
        overlap = _box_iou(masks)[np.ix_(rows, rows)]
        found = found * _not_outdone(overlap >= BOX_IOU, labels)
    outcome = np.zeros_like(scores)
    outcome[rows, labels] = found
    return outcome


def maskness(mask_logits: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """How sure masks are of themselves: (N,), the mean probability of the pixels inside each.

    Args:
        mask_logits: (N, h, w), 0 the border.
        shift: What was added to the network's own logits to make it so.
    """
    inside = threshold(mask_logits)
    total = (expit(np.asarray(mask_logits, np.float64) - shift) * inside).sum(axis=(1, 2))
    sure: np.ndarray = total / np.maximum(inside.sum(axis=(1, 2)), 1)
    return sure


def matrix_decay(overlap: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """SOLOv2's matrix suppression (arXiv 2003.10152, section 3.3), with its Gaussian.

    Args:
        overlap: (K, K) IoU of finds, the strongest first.
        labels: (K,) their classes.

    Returns:
        (K,) factors in (0, 1] on their scores.
    """
    same = np.triu(labels[:, None] == labels[None], 1)
    worst = np.asarray(overlap, np.float64) * same
    # What outdoes a find counts the less, the more it is itself outdone.
    itself = worst.max(axis=0, initial=0)
    factors: np.ndarray = np.exp(SIGMA * (itself[:, None] ** 2 - worst**2).min(axis=0, initial=0))
    return factors


def _not_outdone(close: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) bool: finds that no stronger one of their class, itself kept, is close to."""
    close = close & (labels[:, None] == labels[None])
    kept = np.zeros(len(labels), bool)
    for i in range(len(labels)):
        kept[i] = not (close[i, :i] & kept[:i]).any()
    return kept


def _box_iou(masks: np.ndarray) -> np.ndarray:
    """(N, N) IoU of the bounding boxes of masks (N, h, w); 0 with an empty one."""
    sides = []
    for axis, length in ((2, masks.shape[1]), (1, masks.shape[2])):
        some: np.ndarray = np.any(masks, axis=axis)
        sides.append((some.argmax(axis=1), length - some[:, ::-1].argmax(axis=1)))
    (top, bottom), (left, right) = sides
    area = (bottom - top) * (right - left) * masks.any(axis=(1, 2))
    tall = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    wide = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    both = np.maximum(tall, 0) * np.maximum(wide, 0) * (area[:, None] > 0) * (area > 0)
    either = area[:, None] + area - both
    overlap: np.ndarray = np.divide(both, either, out=np.zeros(both.shape), where=either > 0)
    return overlap
