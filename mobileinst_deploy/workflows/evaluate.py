"""Average precision of a checkpoint or an exported pair, on pictures or on clips.

Pictures and clips stream: what the model finds in one is kept as run lengths in a journal and
matched with the annotations at once. An interrupted evaluation goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy import __version__
from mobileinst_deploy.core.files import sha256_of, write_json
from mobileinst_deploy.core.journal import Journal
from mobileinst_deploy.core.masks import Rle, encode, rle_area, side_by_side
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import EvalBlock, EvalReport
from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.core.suppression import settled_scores
from mobileinst_deploy.core.tracker import Tracker, TrackSettings, class_scores
from mobileinst_deploy.data.annotations import Media, read_frame, to_rle
from mobileinst_deploy.data.coco import CocoPictures
from mobileinst_deploy.data.ytvis import YtvisClips
from mobileinst_deploy.measure.average_precision import (
    CLIP_METRICS,
    PICTURE_METRICS,
    AveragePrecision,
    Candidate,
    Truth,
)
from mobileinst_deploy.media.letterbox import Geometry, fit, unfit_masks
from mobileinst_deploy.workflows.subject import Subject

EVAL_FILE = "eval.json"
#: COCO's limit of (mask, class) pairs per picture, and ours per clip.
MOST_FOUND = 100
#: AP is measured over all scores, so that far weaker tracks count than a person wants to see.
TRACK_SETTINGS = TrackSettings(score=0.05)


@dataclass(frozen=True)
class Found:
    """What a model finds in a picture or clip, and at what cost.

    Attributes:
        candidates: Masks, or tracks as their masks side by side.
        keyframes: How many frames the frame graph ran on.
    """

    candidates: list[Candidate]
    keyframes: int


def evaluate_pictures(
    subject: Subject,
    images: Path,
    annotations: Path,
    *,
    journals: Path,
    progress: Progress = silent,
) -> EvalBlock:
    """Mask AP on pictures, from COCO's form of annotations.

    Every picture gives its :data:`MOST_FOUND` best (mask, class) pairs by score, without a
    threshold.

    Args:
        subject: The model.
        images: Folder of the pictures.
        annotations: Their JSON file.
        journals: Folder for what an interrupted evaluation leaves.
        progress: Told of every picture.

    Raises:
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: The journal cannot be written.
    """
    data = CocoPictures(images, annotations, subject.config.classes)

    def search(medium: Media) -> Found:
        return find_in_picture(subject, read_frame(medium, 0, images))

    return _evaluate(subject, data, annotations, search, PICTURE_METRICS, {}, journals, progress)


def evaluate_clips(
    subject: Subject,
    images: Path,
    annotations: Path,
    schedule: str,
    *,
    journals: Path,
    settings: TrackSettings = TRACK_SETTINGS,
    progress: Progress = silent,
) -> EvalBlock:
    """Track AP on clips, from YouTube-VIS's form of annotations.

    Args:
        subject: The model.
        images: Folder of the clips' pictures.
        annotations: Their JSON file.
        schedule: T, the frames per keyframe, or ``auto``.
        journals: Folder for what an interrupted evaluation leaves.
        settings: What counts as a track.
        progress: Told of every clip.

    Raises:
        ConfigError: ``schedule`` is neither.
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: The journal cannot be written.
    """
    parse_schedule(schedule)
    data = YtvisClips(images, annotations, subject.config.classes)

    def search(medium: Media) -> Found:
        frames = (read_frame(medium, t, images) for t in range(len(medium.files)))
        return find_in_clip(subject, frames, medium.size, schedule, settings)

    used = {"schedule": schedule, **asdict(settings)}
    return _evaluate(subject, data, annotations, search, CLIP_METRICS, used, journals, progress)


def find_in_picture(subject: Subject, image: np.ndarray) -> Found:
    """What a model finds in a picture (H, W, 3) uint8 RGB, at the picture's own resolution."""
    fitted, geometry = fit(image, subject.config.input_size)
    outputs = subject.model.frame(_as_input(fitted))
    scores = class_scores(outputs["class_logits"][0], outputs["objectness_logits"][0])
    scores = settled_scores(subject.config, scores, outputs["mask_logits"][0])
    best = _best_pairs(scores)
    rles = _encoded(outputs["mask_logits"][0, list(best)], geometry)
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
    tracker = Tracker(subject.model, parse_schedule(schedule), settings)
    shown: dict[int, dict[int, Rle]] = {}
    count = keyframes = 0
    for t, image in enumerate(frames):
        fitted, geometry = fit(image, subject.config.input_size)
        frame = tracker.step(_as_input(fitted))
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


def save_report(
    subject: Subject, folder: Path, pictures: EvalBlock | None, clips: Mapping[str, EvalBlock]
) -> dict[str, Any]:
    """Write ``eval.json`` and return what is in it.

    Blocks that an earlier evaluation of the same model wrote there stay; another model's go.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = folder / EVAL_FILE
    document = EvalReport(
        model_id=subject.id,
        model_sha256=subject.sha256,
        trained=subject.trained,
        runtime=subject.runtime,
        input_size=subject.config.input_size,
        pictures=pictures,
        clips=clips,
    ).to_dict()
    try:
        earlier = json.loads(path.read_bytes())
    except (OSError, ValueError):
        earlier = {}
    same = ("schema", "model_sha256", "runtime", "input_size")
    if isinstance(earlier, dict) and all(earlier.get(key) == document[key] for key in same):
        by_length = {**earlier.get("clips", {}), **document.pop("clips", {})}
        if "pictures" in earlier:
            document.setdefault("pictures", earlier["pictures"])
        if by_length:
            document["clips"] = {
                name: by_length[name] for name in sorted(by_length, key=_by_length)
            }
    write_json(path, document)
    return document


def _by_length(schedule: str) -> tuple[bool, int]:
    return (False, int(schedule)) if schedule.isdigit() else (True, 0)


def _evaluate(
    subject: Subject,
    data: CocoPictures | YtvisClips,
    annotations: Path,
    search: Callable[[Media], Found],
    names: tuple[str, ...],
    settings: Mapping[str, Any],
    journals: Path,
    progress: Progress,
) -> EvalBlock:
    """Search every item that the journal does not know yet, and match all."""
    sha256 = sha256_of(annotations)
    key = {
        "version": __version__,
        "model": subject.sha256,
        "runtime": subject.runtime,
        "input_size": list(subject.config.input_size),
        "annotations": sha256,
        "settings": dict(settings),
    }
    label = f"evaluate {annotations.name}"
    if "schedule" in settings:
        label += f" at T = {settings['schedule']}"
    precision = AveragePrecision(subject.config.classes)
    with Journal(journals, key) as journal:
        known = journal.entries()
        keyframes = 0
        for number, medium in enumerate(data.media):
            entry = next(known, None)
            if entry is None:
                found = search(medium)
                journal.add(_entry(found))
            else:
                found = _found(entry)
            keyframes += found.keyframes
            size = medium.size[0], medium.size[1] * len(medium.files)
            precision.add(size, _truth(medium), found.candidates)
            progress(label, number + 1, len(data.media))
        block = EvalBlock(
            annotations=annotations.name,
            annotations_sha256=sha256,
            items=len(data.media),
            objects=precision.objects,
            frames=sum(len(medium.files) for medium in data.media),
            keyframes=keyframes,
            skipped=dict(data.skipped),
            settings=settings,
            metrics=precision.metrics(names),
            per_class=precision.per_class(),
        )
        journal.remove()
    return block


def _entry(found: Found) -> list[Any]:
    """The journal's form of what was found."""
    masks = [[c.mask["size"], c.mask["counts"], c.scores] for c in found.candidates]
    return [found.keyframes, masks]


def _found(entry: list[Any]) -> Found:
    """What the journal says was found."""
    keyframes, masks = entry
    candidates = [
        Candidate({"size": size, "counts": counts}, tuple((label, score) for label, score in pairs))
        for size, counts, pairs in masks
    ]
    return Found(candidates, keyframes)


def _truth(medium: Media) -> list[Truth]:
    """What a picture or clip shows, in the form to match with."""
    truth = []
    for item in medium.objects:
        rles = [None if s is None else to_rle(s, medium.size) for s in item.segmentations]
        if len(rles) == 1 and rles[0] is not None:
            mask, area = rles[0], item.area
        else:
            mask, area = side_by_side(rles, medium.size), None
        truth.append(Truth(item.label, mask, rle_area(mask) if area is None else area, item.crowd))
    return truth


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


def _as_input(fitted: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to the graphs' (1, 3, H, W) float32, still 0 to 255."""
    return np.ascontiguousarray(fitted.transpose(2, 0, 1)[None], np.float32)
