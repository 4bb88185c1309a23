"""Tracking instances through a clip: kernel reuse and kernel association (paper 3.4 and 3.5).

A keyframe runs the frame graph; the reuse frames after it apply its kernels to their own mask
features. An instance of a keyframe continues a track when their kernels point the same way, the
more so where their masks overlap. Everything here is numpy over
:class:`~mobileinst_deploy.core.contract.GraphRunner`, so that PyTorch, ONNX Runtime on this machine
and a phone are driven by one and the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.special import expit

from mobileinst_deploy.core.association import associate, distinct_instances, unit
from mobileinst_deploy.core.contract import (
    CLASS_LOGITS,
    KERNELS,
    MASK_LOGITS,
    OBJECTNESS_LOGITS,
    GraphRunner,
)
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.graphs import Graphs
from mobileinst_deploy.core.masks import iou, threshold
from mobileinst_deploy.core.picture_rules import (
    ASSOCIATION_SETTINGS,
    KERNELS_REMEMBERED,
    SCORE_THRESHOLD,
)
from mobileinst_deploy.core.schedule import Schedule


@dataclass(frozen=True)
class TrackSettings:
    """What counts as an instance and when two are the same.

    Attributes:
        score: Lowest score, in [0, 1], that starts a track; a track is shown while the score over
            all its keyframes is at least this.
        keep: Lowest score, as a share of ``score``, that continues a track, so that one weak
            keyframe does not end it.
        similarity: Lowest cosine similarity, in [-1, 1], of two kernels of one instance whose
            masks do not overlap.
        memory: Keyframes that a hidden instance may miss before it is forgotten, from 0 up.
        duplicate_iou: Mask IoU, in (0, 1], from which the weaker of two queries is a duplicate.
        remembered: Keyframes over which a track's kernel is averaged, from 1 up; with 1 it is that
            of the last one.
        overlap: What is added to that cosine for each unit of IoU with the track's mask in the
            frame before, from 0 to 10; 0 asks of kernels alone, as the paper does.
    """

    score: float = SCORE_THRESHOLD
    keep: float = 0.5
    similarity: float = 0.5
    memory: int = 30
    duplicate_iou: float = 0.5
    remembered: int = KERNELS_REMEMBERED
    overlap: float = float(ASSOCIATION_SETTINGS["remembering"]["overlap"])

    def __post_init__(self) -> None:
        ranges = {
            "score": (0.0, 1.0),
            "keep": (0.0, 1.0),
            "similarity": (-1.0, 1.0),
            "duplicate_iou": (0.0, 1.0),
            "memory": (0.0, float("inf")),
            "remembered": (1.0, float("inf")),
            "overlap": (0.0, 10.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"{name} is {value}, not between {low:g} and {high:g}", "Correct it"
                )


def settings_of(association: str, score: float = SCORE_THRESHOLD) -> TrackSettings:
    """The settings of a kind of kernel association.

    Args:
        association: ``remembering``, the default everywhere; or ``consecutive``, the paper's: the
            cosine between the kernels of consecutive keyframes and nothing else. Then nothing is
            known of keyframes before the last one, a weak instance does not continue a track, and
            only queries of one and the same mask are duplicates.
        score: Lowest score of an instance, in [0, 1].

    Raises:
        ConfigError: There is no such association, or the score is out of range.
    """
    if association not in ASSOCIATION_SETTINGS:
        raise ConfigError(
            f"there is no association {association!r}", f"Use {' or '.join(ASSOCIATION_SETTINGS)}"
        )
    chosen = ASSOCIATION_SETTINGS[association]
    return TrackSettings(
        score,
        keep=chosen["keep"],
        similarity=chosen["similarity"],
        memory=int(chosen["memory"]),
        duplicate_iou=chosen["duplicate_iou"],
        remembered=int(chosen["remembered"]),
        overlap=chosen["overlap"],
    )


class KnownTrack(Protocol):
    """What can be said of a track, wherever it was followed."""

    @property
    def id(self) -> int:
        """Its identity, from 1 up."""
        ...

    @property
    def class_index(self) -> int:
        """The class of the highest score."""
        ...

    @property
    def score(self) -> float:
        """That score, over all keyframes so far."""
        ...


@dataclass
class Track:
    """One instance as known so far.

    Attributes:
        id: Its identity, from 1 up, in order of birth.
        kernel: (D,) the mean direction of its kernels, of length 1; the latest keyframe counts
            1/n up to the last remembered one (ten by default), and no less from then on.
        class_logits: (C,) mean over the keyframes that showed it.
        objectness_logit: Mean over the same keyframes.
        keyframes: How many keyframes showed it.
        missed: Keyframes since the last one that showed it.
    """

    id: int
    kernel: np.ndarray = field(repr=False)
    class_logits: np.ndarray = field(repr=False)
    objectness_logit: float
    keyframes: int = 1
    missed: int = 0

    @property
    def class_scores(self) -> np.ndarray:
        """(C,) score of the track for every class."""
        return class_scores(self.class_logits, np.array(self.objectness_logit))

    @property
    def class_index(self) -> int:
        """The class of the highest score."""
        return int(self.class_logits.argmax())

    @property
    def score(self) -> float:
        """The score for that class."""
        return float(self.class_scores.max())

    def saw(
        self,
        kernel: np.ndarray,
        class_logits: np.ndarray,
        objectness_logit: float,
        remembered: int = KERNELS_REMEMBERED,
    ) -> None:
        """Take one more keyframe into account; the first three arguments are that keyframe's."""
        self.keyframes += 1
        share = min(self.keyframes, remembered)
        self.kernel = unit((self.kernel + (kernel - self.kernel) / share)[None])[0]
        self.missed = 0
        self.class_logits = self.class_logits + (class_logits - self.class_logits) / self.keyframes
        self.objectness_logit += (objectness_logit - self.objectness_logit) / self.keyframes


@dataclass(frozen=True)
class TrackedFrame:
    """The live instances of one frame; k of them, k from 0 up.

    Attributes:
        index: Number of the frame in the clip, from 0.
        since: Frames since the keyframe whose kernels were used; 0 on a keyframe.
        ids: (k,) int64, ascending.
        classes: (k,) int64, indices into the model's classes.
        scores: (k,) float32, over all keyframes so far.
        mask_logits: (k, H/8, W/8) float32; a mask may be empty on a reuse frame.
    """

    index: int
    since: int
    ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    mask_logits: np.ndarray = field(repr=False)

    @property
    def keyframe(self) -> bool:
        """Whether the frame graph ran."""
        return self.since == 0


class Tracker:
    """Follows the instances of one clip, frame by frame.

    Its memory does not grow with the clip, but for one :class:`Track` per instance ever seen.

    Args:
        runner: Computes the two graphs.
        schedule: Says which frames become keyframes.
        settings: What counts as an instance and when two are the same.
    """

    def __init__(
        self, runner: GraphRunner, schedule: Schedule, settings: TrackSettings | None = None
    ) -> None:
        self._graphs = Graphs(runner)
        self._schedule = schedule
        self._settings = settings or TrackSettings()
        self._live: list[Track] = []
        self._hidden: list[Track] = []
        self._keyframe_outputs: dict[str, np.ndarray] = {}
        #: (k, H/8, W/8) bool: the live instances in the frame before.
        self._masks = np.zeros((0, *self._graphs.mask_size), bool)
        self._index = -1
        self._since: int | None = None
        #: Every track ever born, by identity.
        self.tracks: dict[int, Track] = {}

    def step(self, image: np.ndarray) -> TrackedFrame:
        """Track into the next frame.

        Args:
            image: (1, 3, H, W) float32, RGB, 0 to 255, the size of the model.
        """
        self._index += 1
        wanted = self._schedule.wants_keyframe(image, self._since)
        if wanted or self._since is None:
            self._since = 0
            mask_logits = self._keyframe(image)
        else:
            self._since += 1
            mask_logits = self._reuse(image)
        self._masks = threshold(mask_logits)
        tracks = self._live
        frame = TrackedFrame(
            self._index,
            self._since,
            np.array([t.id for t in tracks], np.int64),
            np.array([t.class_index for t in tracks], np.int64),
            np.array([t.score for t in tracks], np.float32),
            mask_logits,
        )
        self._schedule.observe(frame.since, frame.mask_logits)
        return frame

    def _reuse(self, image: np.ndarray) -> np.ndarray:
        if not self._live:
            # Nothing to look for: not even the mask features are needed.
            return np.empty((0, *self._graphs.mask_size), np.float32)
        mask_logits: np.ndarray = self._graphs.mask_head(image, self._keyframe_outputs)[0]
        return mask_logits

    def _keyframe(self, image: np.ndarray) -> np.ndarray:
        outputs = self._graphs.frame(image)
        class_logits, kernels, mask_logits = (
            outputs[name][0] for name in (CLASS_LOGITS, KERNELS, MASK_LOGITS)
        )
        objectness = outputs[OBJECTNESS_LOGITS][0, :, 0]
        settings = self._settings
        scores = class_scores(class_logits, objectness[:, None]).max(axis=1)
        found = distinct_instances(
            scores, mask_logits, settings.score * settings.keep, settings.duplicate_iou
        )
        directions = unit(kernels)

        known = self._live + self._hidden
        # Where a hidden track is nobody knows.
        nearness = np.zeros((len(found), len(known)))
        if settings.overlap:
            nearness[:, : len(self._live)] = iou(threshold(mask_logits[found]), self._masks)
        match = associate(
            np.stack([t.kernel for t in known]) if known else directions[:0],
            directions[found],
            settings.similarity,
            settings.overlap * nearness,
        )
        shown: list[tuple[Track, int]] = []
        for track in known:
            track.missed += 1
        for query, which in zip(found.tolist(), match.tolist(), strict=True):
            seen = directions[query], class_logits[query], float(objectness[query])
            if which >= 0:
                track = known[which]
                track.saw(*seen, settings.remembered)
            elif scores[query] >= settings.score:
                track = Track(len(self.tracks) + 1, *seen)
                self.tracks[track.id] = track
                known.append(track)
            else:
                continue
            if track.score >= settings.score:
                shown.append((track, query))
        shown.sort(key=lambda pair: pair[0].id)

        self._live = [track for track, _ in shown]
        living = {track.id for track in self._live}
        self._hidden = [t for t in known if t.id not in living and t.missed <= settings.memory]
        queries = np.array([query for _, query in shown], np.int64)
        # The graph gets the kernels as the network made them; only association compares directions.
        live = np.ascontiguousarray(kernels[None, queries])
        self._keyframe_outputs = {**outputs, KERNELS: live}
        shown_logits: np.ndarray = mask_logits[queries]
        return shown_logits


def track_clip(
    runner: GraphRunner,
    images: Iterable[np.ndarray],
    schedule: Schedule,
    settings: TrackSettings | None = None,
) -> Iterator[TrackedFrame]:
    """Track through a whole clip; see :class:`Tracker` for the arguments.

    Yields:
        One result per image, as soon as it is there.
    """
    tracker = Tracker(runner, schedule, settings)
    for image in images:
        yield tracker.step(image)


def class_scores(class_logits: np.ndarray, objectness_logits: np.ndarray) -> np.ndarray:
    """Score = sqrt(sigmoid(class) * sigmoid(objectness)), in [0, 1].

    Args:
        class_logits: (..., C).
        objectness_logits: (..., 1), or anything that broadcasts against the class logits.

    Returns:
        (..., C) of the arguments' common dtype. Computed in float64, so that what is rounded to
        float32 is rounded alike on every machine, also near 1, where scores are dense.
    """
    wide = (expit(np.asarray(v, np.float64)) for v in (class_logits, objectness_logits))
    scores: np.ndarray = np.sqrt(np.multiply(*wide))
    return scores.astype(np.result_type(class_logits, objectness_logits), copy=False)
