"""The losses of MobileInst (paper section 3.6): focal class, dice and pixel BCE masks, objectness.

Every loss here is a plain function of logits and targets, reduced in a way that its docstring
states, so that :mod:`.matching` can build costs that agree with it term by term.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobileinst_deploy.core.tracker import TrackSettings

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
DICE_EPSILON = 1.0
#: Cosine from which trackers take two kernels for one instance's.
SAME_INSTANCE = TrackSettings().similarity
_COSINE_SCALE = 0.1


def sigmoid_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss of independent sigmoids (arXiv 1708.02002, equation 5), element by element.

    Args:
        logits: Any shape.
        targets: The same shape, 0 or 1.

    Returns:
        The same shape, not reduced.
    """
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_true = p * targets + (1 - p) * (1 - targets)
    alpha = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return alpha * (1 - p_true) ** FOCAL_GAMMA * cross_entropy


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the dice coefficient of each mask, ``1 - 2 sum(pt) / (sum(p^2) + sum(t^2))``.

    The squares keep soft targets (a coarse cell that an edge crosses) optimal at ``p = t``. A one
    is added above and below, so that two empty masks agree.

    Args:
        logits: (n, P) mask logits of n masks.
        targets: (n, P), from 0 to 1.

    Returns:
        (n,), from 0 to 1.
    """
    p = logits.sigmoid()
    overlap = (p * targets).sum(1)
    total = p.square().sum(1) + targets.square().sum(1)
    return 1 - (2 * overlap + DICE_EPSILON) / (total + DICE_EPSILON)


def pixel_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy averaged over the pixels of each mask.

    Args:
        logits: (n, P).
        targets: (n, P), from 0 to 1.

    Returns:
        (n,).
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


@torch.no_grad()
def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of thresholded masks, the target of the objectness.

    Args:
        logits: (n, P); above 0 is inside.
        targets: (n, P), from 0 to 1; at least one half is inside.

    Returns:
        (n,), from 0 to 1; two empty masks give 0.
    """
    inside, wanted = logits > 0, targets >= 0.5
    intersection = (inside & wanted).sum(1)
    union = (inside | wanted).sum(1)
    return intersection / union.clamp(min=1)


def association(kernels: Tensor, instances: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy on whether two kernels are one instance's, from their cosine.

    The logit is 0 at the cosine from which trackers take two for one, and pairs that are and that
    are not weigh alike. Not the paper's.

    Args:
        kernels: (k, D) of the instances of both frames of a pair.
        instances: (k,) which of the pair's instances each is.

    Returns:
        The loss, and 1, or 0 and 0 where no instance is in both frames.
    """
    directions = F.normalize(kernels, dim=1)
    logits = (directions @ directions.T - SAME_INSTANCE) / _COSINE_SCALE
    first, second = torch.triu_indices(len(kernels), len(kernels), 1)
    logits, same = logits[first, second], instances[first] == instances[second]
    if not bool(same.any()):
        return kernels.sum() * 0.0, 0
    total = F.softplus(-logits[same]).mean()
    if not bool(same.all()):
        total = total + F.softplus(logits[~same]).mean()
    return total, 1
