"""Bipartite matching of queries to instances (paper section 3.6), by one of two rules.

SparseInst's (arXiv 2203.12827, section 3.4), which the paper follows: a pair is worth the query's
probability of the instance's class, to the power of 0.2, times the dice coefficient of their masks,
to the power of 0.8.

By the losses: the cost of a pair is what the pair would add to the loss, less what the query costs
unmatched, with the same weights; so the assignment of least cost is the one that training then
pulls tighter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mobileinst_deploy.training.config import LossConfig
from mobileinst_deploy.training.losses import DICE_EPSILON, FOCAL_ALPHA, FOCAL_GAMMA

_MASK_POWER = 0.8
_SPARSEINST_EPSILON = 1e-4


class Match(NamedTuple):
    """A one-to-one assignment.

    Attributes:
        queries: (m,) int64, indices of matched queries.
        instances: (m,) int64, the instance each of them stands for, ascending.
    """

    queries: Tensor
    instances: Tensor


def class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Change of the focal loss when a query's target becomes a class instead of background.

    Args:
        logits: (N, C) class logits.
        labels: (n,) int64 class indices.

    Returns:
        (N, n).
    """
    p = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * F.softplus(-logits)
    negative = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * F.softplus(logits)
    return (positive - negative)[:, labels]


def dice_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """:func:`.losses.dice` of every pair.

    Args:
        logits: (N, P).
        masks: (n, P), from 0 to 1.

    Returns:
        (N, n).
    """
    p = logits.sigmoid()
    overlap = p @ masks.T
    total = p.square().sum(1)[:, None] + masks.square().sum(1)[None]
    return 1 - (2 * overlap + DICE_EPSILON) / (total + DICE_EPSILON)


def bce_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """:func:`.losses.pixel_bce` of every pair.

    Args:
        logits: (N, P).
        masks: (n, P), from 0 to 1.

    Returns:
        (N, n).
    """
    # softplus(x) - x t is the cross-entropy; only its second term mixes query and instance.
    return (F.softplus(logits).sum(1)[:, None] - logits @ masks.T) / logits.shape[1]


def sparseinst_worth(
    class_logits: Tensor, mask_logits: Tensor, labels: Tensor, masks: Tensor
) -> Tensor:
    """What SparseInst's rule makes of every pair, 0 to 1; the arguments are :func:`match`'s.

    Returns:
        (N, n).
    """
    p = mask_logits.sigmoid()
    total = p.square().sum(1)[:, None] + masks.square().sum(1)[None]
    overlap = 2 * (p @ masks.T) / (total + _SPARSEINST_EPSILON)
    probability = class_logits.sigmoid()[:, labels]
    return overlap**_MASK_POWER * probability ** (1 - _MASK_POWER)


@torch.no_grad()
def match(
    class_logits: Tensor,
    mask_logits: Tensor,
    labels: Tensor,
    masks: Tensor,
    config: LossConfig,
) -> Match:
    """Assign queries to one picture's instances at least cost.

    With more instances than queries the dearest instances stay unmatched. Entries that are not
    finite count as very dear, so that a diverging network fails where its loss is checked and not
    inside the solver.

    Args:
        class_logits: (N, C).
        mask_logits: (N, P), at the resolution of the loss.
        labels: (n,) int64; n may be 0.
        masks: (n, P), from 0 to 1.
        config: The rule, and the weights of the losses.

    Returns:
        min(N, n) pairs.
    """
    if len(labels) == 0:
        empty = labels.new_zeros(0, dtype=torch.int64)
        return Match(empty, empty)
    logits, masks = mask_logits.float(), masks.float()
    if config.matching == "sparseinst":
        cost = -sparseinst_worth(class_logits.float(), logits, labels, masks)
    else:
        cost = config.class_weight * class_cost(class_logits.float(), labels)
        cost += config.mask_weight * (dice_cost(logits, masks) + bce_cost(logits, masks))
    cost = torch.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6)
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    order = columns.argsort()
    device = class_logits.device
    return Match(
        torch.from_numpy(rows[order]).to(device), torch.from_numpy(columns[order]).to(device)
    )
