"""What a model finds in every picture or clip of a data set, kept as it comes.

Pictures and clips stream: what is found in one goes into a journal as run lengths. Interrupted work
goes on where it was, and what was found for one purpose is not searched for again for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Annotated, Any

import msgspec
import numpy as np
from platformdirs import user_cache_path

from mobileinst_deploy.core.contract import CLASS_LOGITS, MASK_LOGITS, OBJECTNESS_LOGITS, Tensors
from mobileinst_deploy.core.documents import Whole
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.graphs import Graphs
from mobileinst_deploy.core.journal import Journals
from mobileinst_deploy.core.masks import Rle, encode, side_by_side
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.core.suppression import settled_scores
from mobileinst_deploy.core.tracker import Tracker, TrackSettings, class_scores, settings_of
from mobileinst_deploy.core.version import __version__
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.samples import Media, read_frame
from mobileinst_deploy.measure.average_precision import Candidate
from mobileinst_deploy.media.letterbox import Geometry, prepare, unfit_masks
from mobileinst_deploy.runtimes.device import DeviceRunner
from mobileinst_deploy.workflows.subject import Subject

#: COCO's limit of (mask, class) pairs per picture, and ours per clip.
MOST_FOUND = 100
#: A device's runner is started for so many pictures.
ON_DEVICE_AT_ONCE = 16
#: AP is measured over all scores, so that far weaker tracks count than a person wants to see.
TRACK_SETTINGS = settings_of("remembering", 0.05)


@dataclass(frozen=True)
class Found:
    """What a model finds in a picture or clip, and at what cost.

    Attributes:
        candidates: Masks, or tracks as their masks side by side.
        keyframes: How many frames the frame graph ran on.
    """

    candidates: list[Candidate]
    keyframes: int


@dataclass(frozen=True)
class Search:
    """A search of a whole data set by a model.

    Attributes:
        subject: The model.
        data: What is searched.
        sha256: Of the annotation file.
        schedule: For clips: T, the frames per keyframe, or ``auto``. None for pictures.
        settings: What counts as a track; pictures take no notice of it.
        journals: What interrupted work leaves; the caller removes it when the result is kept.
    """

    subject: Subject
    data: AnnotatedSet
    sha256: str
    schedule: str | None
    journals: Journals
    settings: TrackSettings = TRACK_SETTINGS

    @property
    def used(self) -> Mapping[str, Any]:
        """The settings that the result depends on, as records have them."""
        used: dict[str, Any] = {}
        if self.schedule is not None:
            used = {"schedule": self.schedule, **asdict(self.settings)}
        if self.subject.upright is not None:
            used["upright"] = self.subject.upright.sha256
        return used

    def through(self, label: str, progress: Progress = silent) -> Iterator[tuple[Media, Found]]:
        """Every picture or clip in order, with what is found in it.

        Args:
            label: Of the work, for ``progress``.
            progress: Told of every picture or clip.

        Raises:
            ConfigError: The schedule is none.
            MediaError: A picture cannot be read.
            OutputError: The journal cannot be written.
        """
        key = {
            "version": __version__,
            "model": self.subject.sha256,
            "runtime": self.subject.runtime,
            "device": self.subject.device,
            "input_size": list(self.subject.config.input_size),
            "annotations": self.sha256,
            # The same annotations may go with pictures of another folder.
            "images": str(self.data.folder.resolve()),
            "settings": dict(self.used),
        }
        if self.schedule is not None:
            parse_schedule(self.schedule)
            label += f" at T = {self.schedule}"
        with self.journals.journal(key) as journal:
            known = journal.entries(_Entry)
            ahead: deque[Found] = deque()
            for number, medium in enumerate(self.data.media):
                entry = next(known, None)
                if entry is None:
                    ahead = ahead or deque(self._some(number))
                    found = ahead.popleft()
                    journal.add(_entry(found))
                else:
                    found = _found(entry)
                yield medium, found
                progress(label, number + 1, len(self.data.media))

    def _some(self, first: int) -> list[Found]:
        """What is in one item; of pictures on a device, in as many as one start may take."""
        if self.schedule is not None:
            return [self._in_clip(self.data.media[first], self.schedule)]
        at_once = ON_DEVICE_AT_ONCE if isinstance(self.subject.runner, DeviceRunner) else 1
        subject = self.subject.fitting(self.data.media[first].size)
        media = list(
            takewhile(
                lambda m: self.subject.fitting(m.size) is subject,
                self.data.media[first : first + at_once],
            )
        )
        return find_in_pictures(subject, [read_frame(m, 0, self.data.folder) for m in media])

    def _in_clip(self, medium: Media, schedule: str) -> Found:
        folder, subject = self.data.folder, self.subject.fitting(medium.size)
        frames = (read_frame(medium, t, folder) for t in range(len(medium.files)))
        return find_in_clip(subject, frames, medium.size, schedule, self.settings)


def search_settings(association: str, *, clips: bool = True) -> TrackSettings:
    """What counts as a track, by a kind of association; pictures take the default alone.

    Raises:
        ConfigError: There is no such association, or it does nothing.
    """
    settings = settings_of(association, TRACK_SETTINGS.score)
    if settings != TRACK_SETTINGS and not clips:
        raise ConfigError(
            "pictures have no tracks to associate",
            "Leave --association out, or use --dataset ytvis for clips",
            "--association",
        )
    return settings


def search_journals() -> Journals:
    """Where searches keep what they found so far."""
    return Journals(user_cache_path("mobileinst") / "evaluate")


def find_in_picture(subject: Subject, image: np.ndarray) -> Found:
    """What a model finds in a picture (H, W, 3) uint8 RGB, at the picture's own resolution."""
    return find_in_pictures(subject, [image])[0]


def find_in_pictures(subject: Subject, images: Sequence[np.ndarray]) -> list[Found]:
    """The same of several pictures, by one start of a device's runner."""
    fitted = [prepare(image, subject.config.input_size) for image in images]
    outputs = Graphs(subject.runner).frames([prepared for prepared, _ in fitted])
    return [
        _in_picture(subject, found, geometry)
        for found, (_, geometry) in zip(outputs, fitted, strict=True)
    ]


def _in_picture(subject: Subject, outputs: Tensors, geometry: Geometry) -> Found:
    scores = class_scores(outputs[CLASS_LOGITS][0], outputs[OBJECTNESS_LOGITS][0])
    scores = settled_scores(subject.config, scores, outputs[MASK_LOGITS][0])
    best = _best_pairs(scores)
    rles = _encoded(outputs[MASK_LOGITS][0, list(best)], geometry)
    candidates = [
        Candidate(rle, pairs) for rle, pairs in zip(rles, best.values(), strict=True) if rle
    ]
    return Found(candidates, keyframes=1)


def find_in_clip(
    subject: Subject,
    frames: Iterable[np.ndarray],
    size: tuple[int, int],
    schedule: str,
    settings: TrackSettings = TRACK_SETTINGS,
) -> Found:
    """The tracks that a model finds in a clip, each as its masks side by side.

    Args:
        subject: The model.
        frames: Pictures (H, W, 3) uint8 RGB, in order; one is in memory at a time.
        size: (H, W) of them.
        schedule: T, the frames per keyframe, or ``auto``.
        settings: What counts as a track.
    """
    tracker = Tracker(subject.runner, parse_schedule(schedule), settings)
    shown: dict[int, dict[int, Rle]] = {}
    count = keyframes = 0
    for t, image in enumerate(frames):
        prepared, geometry = prepare(image, subject.config.input_size)
        frame = tracker.step(prepared)
        rles = _encoded(frame.mask_logits, geometry)
        for track, rle in zip(frame.ids.tolist(), rles, strict=True):
            if rle:
                shown.setdefault(track, {})[t] = rle
        count += 1
        keyframes += frame.keyframe
    tracks = sorted(shown)
    if not tracks:
        return Found([], keyframes)
    best = _best_pairs(np.stack([tracker.tracks[track].class_scores for track in tracks]))
    candidates = [
        Candidate(side_by_side([shown[tracks[i]].get(t) for t in range(count)], size), pairs)
        for i, pairs in best.items()
    ]
    return Found(candidates, keyframes)


_Size = Annotated[list[Whole], msgspec.Meta(min_length=2, max_length=2)]
_Score = Annotated[float, msgspec.Meta(ge=0, le=1.01)]  # a mean may be rounded up
#: Keyframes, and of each candidate its mask's size and run lengths, and its classes with scores.
_Entry = tuple[Whole, list[tuple[_Size, str, list[tuple[Whole, _Score]]]]]


def _entry(found: Found) -> list[Any]:
    """The journal's form of what was found."""
    masks = [[c.mask["size"], c.mask["counts"], c.scores] for c in found.candidates]
    return [found.keyframes, masks]


def _found(entry: tuple[Any, Any]) -> Found:
    """What the journal says was found."""
    keyframes, masks = entry
    candidates = [
        Candidate({"size": size, "counts": counts}, tuple((label, score) for label, score in pairs))
        for size, counts, pairs in masks
    ]
    return Found(candidates, keyframes)


def _encoded(mask_logits: np.ndarray, geometry: Geometry) -> Iterator[Rle | None]:
    """Masks at the picture's own size, None where empty; one at a time is in memory as pixels."""
    for i in range(len(mask_logits)):
        mask = unfit_masks(mask_logits[i : i + 1], geometry)[0]
        yield encode(mask) if mask.any() else None


def _best_pairs(scores: np.ndarray) -> dict[int, tuple[tuple[int, float], ...]]:
    """The best (row, class) pairs of scores (n, C), by row: ``{row: ((class, score), ...)}``."""
    flat = scores.ravel()
    best: dict[int, list[tuple[int, float]]] = {}
    for index in np.argsort(-flat, kind="stable")[:MOST_FOUND].tolist():
        row, label = divmod(index, scores.shape[1])
        best.setdefault(row, []).append((label, float(flat[index])))
    return {row: tuple(pairs) for row, pairs in best.items()}
