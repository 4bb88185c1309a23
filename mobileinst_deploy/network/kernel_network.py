"""The contract of a kernel network: what the toolchain asks of a PyTorch module.

A network that makes masks as kernels times mask features subclasses :class:`KernelNetwork`, states
its :class:`~mobileinst_deploy.core.needs.Needs`, and says two things: what it sees in a picture
(:meth:`~KernelNetwork.features`), and which instances it finds there
(:meth:`~KernelNetwork.decode`). Everything else follows: a keyframe decodes and multiplies, a reuse
frame takes the kernels of its keyframe and only multiplies (paper section 3.4).

Example:
    >>> class Dots(KernelNetwork):
    ...     def __init__(self):
    ...         super().__init__(Needs(("dot",), (64, 64), num_queries=2, width=4))
    ...         self.body = nn.Conv2d(3, 4, 8, stride=8)
    ...         self.kernels = nn.Parameter(torch.ones(2, 4))
    ...         self.head = nn.Linear(4, 2)
    ...     def features(self, image):
    ...         return Features(self.body(self.normalise(image)))
    ...     def decode(self, features):
    ...         seen = features.mask_features.mean((2, 3)).unsqueeze(1) * self.kernels
    ...         logits = self.head(seen)
    ...         return Decoded(logits[..., :1], logits[..., 1:], seen)
    >>> Dots()(torch.zeros(1, 3, 64, 64)).mask_logits.shape
    torch.Size([1, 2, 8, 8])
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.needs import CERTAIN, Description, Needs
from mobileinst_deploy.network.layers import static_shape

#: Below it a score is nothing, and its logarithm still a number.
_LEAST = 1e-30
#: A class that leaves no doubt keeps so much, as rounding would.
_LEAST_DOUBT = 1e-5


class FrameOutput(NamedTuple):
    """What a keyframe gives; the frame graph's outputs, in order.

    Whatever the network's own logits mean, here the score of a class is
    sqrt(sigmoid(class) * sigmoid(objectness)), and a pixel belongs to a mask from logit 0 up.

    Attributes:
        class_logits: (B, N, C).
        objectness_logits: (B, N, 1).
        kernels: (B, N, D).
        mask_logits: (B, N, H/stride, W/stride).
        context: What reuse frames are given beside the kernels; empty without context reuse.
    """

    class_logits: Tensor
    objectness_logits: Tensor
    kernels: Tensor
    mask_logits: Tensor
    context: tuple[Tensor, ...] = ()


class Features(NamedTuple):
    """What a network sees in a picture.

    Attributes:
        mask_features: What the kernels multiply, (B, D, H/stride, W/stride) for a plain product.
        memory: Whatever else :meth:`KernelNetwork.decode` reads: tensors that a reuse frame does
            not need.
        context: As in :class:`FrameOutput`; MobileInst alone can reuse it so far.
    """

    mask_features: Tensor
    memory: Any = None
    context: tuple[Tensor, ...] = ()


class Decoded(NamedTuple):
    """The instances that a network finds, in its own logits.

    Attributes:
        class_logits: (B, N, C); with scores by softmax (B, N, C + 1), "no object" last.
        objectness_logits: (B, N, 1), or None where the scores know no quality.
        kernels: (B, N, D).
        stage_queries: What temporal training passes to a later frame, (B, N, D) per stage.
    """

    class_logits: Tensor
    objectness_logits: Tensor | None
    kernels: Tensor
    stage_queries: tuple[Tensor, ...] = ()


class KernelNetwork(nn.Module):
    """A network that the toolchain can export, verify, measure and track with.

    In eval mode its computation must not depend on the values in a picture: the graphs come from
    one trace.

    Args:
        needs: What the network needs and what its outputs mean.
    """

    def __init__(self, needs: Needs) -> None:
        super().__init__()
        self.needs = needs
        order = slice(None) if needs.channel_order == "rgb" else slice(None, None, -1)
        mean = torch.tensor(needs.mean[order]).view(1, 3, 1, 1)
        scale = 1 / torch.tensor(needs.std[order]).view(1, 3, 1, 1)
        # Constants, not weights: they stay out of the state dict.
        self.register_buffer("_mean", mean, persistent=False)
        self.register_buffer("_scale", scale, persistent=False)

    _mean: Tensor
    _scale: Tensor

    @property
    def description(self) -> Description:
        """What a pair's manifest says of the network: here, what it needs."""
        return self.needs

    @abstractmethod
    def features(self, image: Tensor) -> Features:
        """What the network sees in a picture.

        Args:
            image: (B, 3, H, W) float32, RGB, 0 to 255; :meth:`normalise` prepares it.
        """
        raise NotImplementedError

    @abstractmethod
    def decode(self, features: Features) -> Decoded:
        """Which instances are in a picture, by its features."""
        raise NotImplementedError

    def masks(self, kernels: Tensor, mask_features: Tensor) -> Tensor:
        """Kernels (B, n, D) applied to mask features: logits (B, n, H/stride, W/stride).

        A network whose kernels are more than one matrix product says here what they are.
        """
        return apply_kernels(kernels, mask_features)

    def reuse_features(self, image: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """The mask features alone; a network that can leave something out for them says so here.

        Args:
            image: As for :meth:`features`.
            context: The keyframe's, of a network that reuses it.
        """
        return self.features(image).mask_features

    def own_name(self, name: str) -> str | None:
        """The network's own name of a tensor in a checkpoint, where its files use others.

        Returns:
            None for a tensor that the network is not built of.
        """
        return name

    def normalise(self, image: Tensor) -> Tensor:
        """A picture as :class:`Needs` says that the network wants it, from RGB in 0 to 255."""
        if self.needs.channel_order == "bgr":
            # Slices rather than an index: every converter knows them.
            image = torch.cat([image[:, 2:], image[:, 1:2], image[:, :1]], dim=1)
        return (image - self._mean) * self._scale

    def forward(self, image: Tensor) -> FrameOutput:
        """Segment a keyframe, (B, 3, H, W) float32, RGB, 0 to 255."""
        features = self.features(image)
        return self.outputs(features, self.decode(features))

    def outputs(self, features: Features, decoded: Decoded) -> FrameOutput:
        """The frame graph's outputs, in this project's logits, from the network's own."""
        classes, objectness = _as_quality(self.needs, decoded)
        kernels = decoded.kernels
        return FrameOutput(
            classes,
            objectness,
            kernels,
            self.reuse(kernels, features.mask_features),
            features.context,
        )

    def mask_head(self, image: Tensor, kernels: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """Segment a reuse frame by a keyframe's kernels (paper section 3.4).

        Args:
            image: As for :meth:`features`.
            kernels: (B, n, D), any n.
            context: The keyframe's, of a network that reuses it.

        Returns:
            Mask logits (B, n, H/stride, W/stride).
        """
        return self.reuse(kernels, self.reuse_features(image, context))

    def reuse(self, kernels: Tensor, mask_features: Tensor) -> Tensor:
        """A keyframe's kernels on any picture's mask features: logits (B, n, h, w)."""
        logits = self.masks(kernels, mask_features)
        shift = self.needs.mask_shift
        return logits + shift if shift else logits


def apply_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """Mask logits: kernels (B, n, D) times mask features (B, D, h, w) to (B, n, h, w)."""
    b, d, h, w = static_shape(mask_features)
    return torch.matmul(kernels, mask_features.reshape(b, d, h * w)).reshape(b, -1, h, w)


def _as_quality(needs: Needs, decoded: Decoded) -> tuple[Tensor, Tensor]:
    """Class and objectness logits whose sqrt(sigmoid * sigmoid) is the network's own score.

    Every tracker, phone and report then needs one formula. A softmax falls apart into "is it an
    object" and "which one": score = (1 - p_none) * q_class, and each factor's square is a sigmoid.
    """
    logits = decoded.class_logits
    if needs.scores == "quality":
        assert decoded.objectness_logits is not None  # noqa: S101  # checked where it was loaded
        return logits, decoded.objectness_logits
    if needs.scores == "sigmoid":
        return squared(logits), logits[..., :1] * 0 + CERTAIN
    each = logits.softmax(-1)[..., :-1]
    # A sum as a product: converters for phones lose a sum's axes, and know products.
    some = torch.matmul(each, logits.new_ones(needs.num_classes, 1))
    which = logits[..., :-1].softmax(-1)
    return squared(_logit(which, 1 - which)), squared(_logit(some, 1 - some))


def _logit(yes: Tensor, no: Tensor) -> Tensor:
    """The logit of a probability, from it and its complement; certainty keeps a little doubt."""
    return yes.clamp(min=_LEAST).log() - no.clamp(min=_LEAST_DOUBT).log()


def squared(logits: Tensor) -> Tensor:
    """The logits whose sigmoid is the square of these logits' sigmoid."""
    return 2 * logits - F.softplus(logits + math.log(2))
