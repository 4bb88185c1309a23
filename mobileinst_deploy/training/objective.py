"""What a training step minimises: the losses of pictures, and of pairs of frames by query passing.

Query passing (paper section 3.5) trains kernels to hold over time without new parameters. Of two
frames t and t + delta, the queries that leave the global stage at frame t enter the local stage at
frame t + delta; the masks that come out are supervised with frame t + delta's masks of the
instances that the queries were matched to at frame t. The paper does not say what happens to an
instance that has vanished by then: here its query is supervised with an empty mask, since an empty
mask is what kernel reuse should give for it.

Where the model reuses context, the mask features of frame t + delta are then a reuse frame's, made
with frame t's context: so the network learns to live with a context a few frames old.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.config import MASK_STRIDE
from mobileinst_deploy.network import Decoded, Features, MobileInst, apply_kernels
from mobileinst_deploy.training.config import LossConfig
from mobileinst_deploy.training.losses import association, dice, mask_iou, pixel_bce, sigmoid_focal
from mobileinst_deploy.training.matching import Match, match

_NO_CLASS = -1


class Target(NamedTuple):
    """The instances of one frame.

    Attributes:
        labels: (n,) int64 class indices.
        masks: (n, h, w) float32, from 0 to 1: the share of each cell inside, at the loss's stride.
            All zero where the instance is not in this frame.
    """

    labels: Tensor
    masks: Tensor


class PictureLosses(NamedTuple):
    """Losses of a batch of pictures, not weighted yet, and the matching they came from.

    Attributes:
        focal: Focal loss summed over queries and classes, per instance of all processes.
        dice: Mean over matched pairs.
        bce: Mean over matched pairs.
        objectness: Mean over matched pairs.
        matches: One per picture; ``instances`` index into the picture's :class:`Target`.
    """

    focal: Tensor
    dice: Tensor
    bce: Tensor
    objectness: Tensor
    matches: list[Match]


class Objective(nn.Module):
    """A network with its losses, as one module, so that an engine can wrap and distribute it.

    Args:
        model: The network.
        config: Weights and options of the losses.

    Attributes:
        semantic: A 1x1 convolution that tells classes from mask features, cell by cell; only
            training has it, and only where its weight is above 0.
    """

    def __init__(self, model: MobileInst, config: LossConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.semantic: nn.Conv2d | None = None
        if config.semantic_weight > 0:
            self.semantic = nn.Conv2d(model.config.width, model.config.num_classes, 1)

    def forward(
        self,
        images: Tensor,
        targets: list[Target],
        later: list[Target] | None = None,
        query_passing: bool | str = False,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            images: (B, 3, H, W) uint8 or float, RGB, 0 to 255. With ``later``, (B + L, 3, H, W):
                the first L are frames t of pairs, the last L their frames t + delta, and between
                them are pictures.
            targets: B targets of all but the frames t + delta.
            later: L targets of those, with the same instances in the same order as at frame t.
            query_passing: Whether pairs also get query passing, and from which stage, as in the
                recipe. Without it their frames are trained as pictures alone.

        Returns:
            Scalars by name; ``loss`` is their weighted sum.
        """
        features = self.model.features(images.float())
        decoded = self.model.decode(features)
        everything = targets if later is None else targets + later
        with torch.autocast(images.device.type, enabled=False):
            features = _float(features)
            picture = self._picture(decoded, features.mask_features, everything)
            c = self.config
            losses = {
                "focal": c.class_weight * picture.focal,
                "dice": c.mask_weight * picture.dice,
                "bce": c.mask_weight * picture.bce,
                "objectness": c.objectness_weight * picture.objectness,
            }
            if self.semantic is not None:
                losses["semantic"] = c.semantic_weight * self._semantic(
                    self.semantic(features.mask_features), everything
                )
            if later is not None and c.association_weight > 0:
                losses["association"] = c.association_weight * _association(
                    decoded.kernels.float(), picture.matches, len(later)
                )
        if later is not None and query_passing:
            b, pairs = len(targets), len(later)
            there = features.mask_features[b:]
            if features.context:
                passed_on = [tensor[:pairs] for tensor in features.context]
                there = self.model.reuse_features(images[b:].float(), passed_on)
            leaving = 1 if query_passing == "local-local" else 0
            passed = self.model.decode(
                Features(there, None),
                queries=decoded.stage_queries[leaving][:pairs],
                first_stage=1,
            )
            with torch.autocast(images.device.type, enabled=False):
                masks = apply_kernels(passed.kernels.float(), there.float())
                losses["passed"] = c.mask_weight * self._masks(
                    masks, later, picture.matches[:pairs]
                )
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses

    def _picture(
        self, decoded: Decoded, mask_features: Tensor, targets: list[Target]
    ) -> PictureLosses:
        class_logits = decoded.class_logits.float()
        masks = self._resized(apply_kernels(decoded.kernels.float(), mask_features))
        assert decoded.objectness_logits is not None  # noqa: S101  # MobileInst always has them
        objectness = decoded.objectness_logits.float().squeeze(2)
        matches: list[Match] = []
        classes = torch.zeros_like(class_logits)
        logits, wanted, quality = [], [], []
        for i, target in enumerate(targets):
            flat = target.masks.flatten(1)
            present = flat.amax(1) > 0 if len(flat) else flat.new_zeros(0, dtype=torch.bool)
            index = present.nonzero().squeeze(1)
            found = match(
                class_logits[i],
                masks[i],
                target.labels[index],
                flat[index],
                self.config,
            )
            found = Match(found.queries, index[found.instances])
            matches.append(found)
            classes[i, found.queries, target.labels[found.instances]] = 1.0
            logits.append(masks[i, found.queries])
            wanted.append(flat[found.instances])
            quality.append(objectness[i, found.queries])
        pairs, truth, scores = torch.cat(logits), torch.cat(wanted), torch.cat(quality)
        count = shared_count(len(pairs), pairs.device)
        focal = sigmoid_focal(class_logits, classes).sum() / count
        # Sums over nothing keep the graph connected where a batch holds no instance at all.
        iou = mask_iou(pairs, truth)
        quality_loss = F.binary_cross_entropy_with_logits(scores, iou, reduction="sum")
        return PictureLosses(
            focal,
            dice(pairs, truth).sum() / count,
            pixel_bce(pairs, truth).sum() / count,
            quality_loss / count,
            matches,
        )

    def _masks(self, mask_logits: Tensor, targets: list[Target], matches: list[Match]) -> Tensor:
        """Dice and pixel BCE of given pairs, the mean over pairs."""
        masks = self._resized(mask_logits)
        pairs = torch.cat([masks[i, m.queries] for i, m in enumerate(matches)])
        truth = torch.cat(
            [t.masks.flatten(1)[m.instances] for t, m in zip(targets, matches, strict=True)]
        )
        total: Tensor = (dice(pairs, truth) + pixel_bce(pairs, truth)).sum()
        return total / shared_count(len(pairs), pairs.device)

    def _semantic(self, logits: Tensor, targets: list[Target]) -> Tensor:
        """Cross-entropy of the class of each cell inside an instance, the mean over such cells."""
        wanted = torch.full_like(logits[:, 0], _NO_CLASS, dtype=torch.int64)
        scale = MASK_STRIDE // self.config.mask_stride
        for i, target in enumerate(targets):
            if len(target.labels):
                share, owner = F.avg_pool2d(target.masks, scale).max(0)
                wanted[i] = torch.where(share >= 0.5, target.labels[owner], _NO_CLASS)
        total = F.cross_entropy(logits, wanted, ignore_index=_NO_CLASS, reduction="sum")
        mean: Tensor = total / shared_count(int((wanted != _NO_CLASS).sum()), logits.device)
        return mean

    def _resized(self, mask_logits: Tensor) -> Tensor:
        """(B, N, H/8, W/8) to (B, N, P), P cells at the loss's stride."""
        scale = MASK_STRIDE // self.config.mask_stride
        if scale > 1:
            mask_logits = F.interpolate(
                mask_logits, scale_factor=scale, mode="bilinear", align_corners=False
            )
        return mask_logits.flatten(2)


def _association(kernels: Tensor, matches: list[Match], pairs: int) -> Tensor:
    """The mean over the pairs of which an instance is in both frames.

    Args:
        kernels: (B + L, N, D), with L pairs: their earlier frames first, their later ones last.
        matches: B + L of them.
        pairs: L.
    """
    totals, count = [kernels.sum() * 0.0], 0
    for i in range(pairs):
        both = (i, len(matches) - pairs + i)
        found, counts = association(
            torch.cat([kernels[j, matches[j].queries] for j in both]),
            torch.cat([matches[j].instances for j in both]),
        )
        totals.append(found)
        count += counts
    return torch.stack(totals).sum() / shared_count(count, kernels.device)


def shared_count(count: int, device: torch.device) -> float:
    """What sums are divided by: the mean of a count over all processes that train together.

    Engines average the processes' gradients. A sum divided by this mean then weighs every instance
    alike, whichever process holds it: two processes give the losses of one with both their batches.

    Args:
        count: This process's, of instances or cells.
        device: Where the processes exchange numbers.

    Returns:
        At least 1 over the number of processes, so that it can be divided by.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return max(count, 1)
    total = torch.tensor(float(count), device=device)
    dist.all_reduce(total)
    return max(float(total), 1.0) / dist.get_world_size()


def _float(features: Features) -> Features:
    memory = None if features.memory is None else features.memory.float()
    return Features(features.mask_features.float(), memory, features.context)
