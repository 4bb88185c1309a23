"""Average precision of a checkpoint or an exported pair, on pictures or on clips.

Pictures and clips stream: what the model finds in one is kept as run lengths in a journal and
matched with the annotations at once. An interrupted evaluation goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from platformdirs import user_cache_path

from mobileinst_deploy import __version__
from mobileinst_deploy.core.contract import CLASS_LOGITS, MASK_LOGITS, OBJECTNESS_LOGITS
from mobileinst_deploy.core.documents import Blame, Whole, read_json
from mobileinst_deploy.core.errors import ConfigError, InputError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.core.graphs import Graphs
from mobileinst_deploy.core.journal import Journals
from mobileinst_deploy.core.masks import Rle, encode, rle_area, side_by_side
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import EvalBlock, EvalReport
from mobileinst_deploy.core.schedule import MAX_CLIP, parse_schedule
from mobileinst_deploy.core.suppression import settled_scores
from mobileinst_deploy.core.text import whole
from mobileinst_deploy.core.tracker import Tracker, TrackSettings, class_scores
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.annotations import Media, read_frame
from mobileinst_deploy.data.segmentation import to_rle
from mobileinst_deploy.measure.average_precision import (
    CLIP_METRICS,
    PICTURE_METRICS,
    AveragePrecision,
    Candidate,
    Truth,
)
from mobileinst_deploy.media.letterbox import Geometry, prepare, unfit_masks
from mobileinst_deploy.workflows.results import Kept, place as results_place
from mobileinst_deploy.workflows.subject import Subject, open_subject

DATASETS = ("coco", "ytvis")
CLIP_LENGTHS = ("1", "3", "6")
_Figure = Whole | Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)] | str | bool | None
_Schedule = Annotated[str, msgspec.Meta(pattern="^(auto|[0-9]{1,6})$")]
#: COCO's limit of (mask, class) pairs per picture, and ours per clip.
MOST_FOUND = 100
#: AP is measured over all scores, so that far weaker tracks count than a person wants to see.
TRACK_SETTINGS = TrackSettings(score=0.05)


@dataclass(frozen=True)
class Evaluated:
    """What a model is worth on a data set.

    Attributes:
        report: What was measured now.
        document: The same with what earlier evaluations of this model found, as in ``eval.json``.
        kept: What became of that file.
    """

    report: EvalReport
    document: Mapping[str, Any]
    kept: Kept

    @property
    def measured(self) -> Mapping[str, EvalBlock]:
        """What was measured now, by what it was measured on: ``pictures``, or ``T = 3``."""
        if self.report.pictures is not None:
            return {"pictures": self.report.pictures}
        return {f"T = {name}": block for name, block in self.report.clips.items()}


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
    journals: Journals,
    progress: Progress = silent,
) -> EvalBlock:
    """Mask AP on pictures, from COCO's form of annotations.

    Every picture gives its :data:`MOST_FOUND` best (mask, class) pairs by score, without a
    threshold.

    Args:
        subject: The model.
        images: Folder of the pictures.
        annotations: Their JSON file.
        journals: What an interrupted evaluation leaves; the caller removes it when the result is
            kept.
        progress: Told of every picture.

    Raises:
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: The journal cannot be written.
    """
    data = AnnotatedSet(images, annotations, subject.config.classes)

    def search(medium: Media) -> Found:
        return find_in_picture(subject, read_frame(medium, 0, images))

    return _evaluate(subject, data, annotations, search, PICTURE_METRICS, {}, journals, progress)


def evaluate_clips(
    subject: Subject,
    images: Path,
    annotations: Path,
    schedule: str,
    *,
    journals: Journals,
    settings: TrackSettings = TRACK_SETTINGS,
    progress: Progress = silent,
) -> EvalBlock:
    """Track AP on clips, from YouTube-VIS's form of annotations.

    Args:
        subject: The model.
        images: Folder of the clips' pictures.
        annotations: Their JSON file.
        schedule: T, the frames per keyframe, or ``auto``.
        journals: What an interrupted evaluation leaves; the caller removes it when the result is
            kept.
        settings: What counts as a track.
        progress: Told of every clip.

    Raises:
        ConfigError: ``schedule`` is neither.
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: The journal cannot be written.
    """
    parse_schedule(schedule)
    data = AnnotatedSet(images, annotations, subject.config.classes, clips=True)

    def search(medium: Media) -> Found:
        frames = (read_frame(medium, t, images) for t in range(len(medium.files)))
        return find_in_clip(subject, frames, medium.size, schedule, settings)

    used = {"schedule": schedule, **asdict(settings)}
    return _evaluate(subject, data, annotations, search, CLIP_METRICS, used, journals, progress)


def find_in_picture(subject: Subject, image: np.ndarray) -> Found:
    """What a model finds in a picture (H, W, 3) uint8 RGB, at the picture's own resolution."""
    prepared, geometry = prepare(image, subject.config.input_size)
    outputs = Graphs(subject.runner).frame(prepared)
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


def evaluate(
    model: str,
    *,
    dataset: str,
    images: str | Path,
    annotations: str | Path,
    clip_lengths: Sequence[int | str] = (),
    device: str = "cpu",
    report: str | Path | None = None,
    progress: Progress = silent,
) -> Evaluated:
    """Measure mask AP on pictures or track AP on clips, and keep ``eval.json``.

    An interrupted evaluation goes on where it was, whatever T it was at; what it knew goes only
    when the result is kept.

    Args:
        model: An exported pair's folder, a checkpoint, a model.toml or a zoo id.
        dataset: The form of the annotations: ``coco`` for pictures, ``ytvis`` for clips.
        images: Folder of the pictures.
        annotations: Their JSON file.
        clip_lengths: With clips: every T to measure at, or ``auto``; none means 1, 3 and 6.
        device: ``cpu``; for a network also another device of PyTorch's.
        report: Where ``eval.json`` goes; by default under the model's folder.
        progress: Told of every picture or clip.

    Raises:
        ConfigError: An option is wrong or does not apply.
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: A place named by ``report`` cannot be written.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> done = mobileinst.evaluate(
        ...     "pair", dataset="coco", images="val", annotations="val/instances.json"
        ... )
        >>> 0 <= done.measured["pictures"].metrics["AP"] <= 1
        True
    """
    images, annotations = Path(images), Path(annotations)
    where = None if report is None else Path(report)
    if dataset not in DATASETS:
        raise ConfigError(f"there is no dataset form {dataset!r}", f"Use {' or '.join(DATASETS)}")
    if dataset == "coco" and clip_lengths:
        raise ConfigError(
            "pictures have no clip length", "Leave -T out, or use --dataset ytvis for clips"
        )
    schedules = tuple(dict.fromkeys(map(str, clip_lengths))) or CLIP_LENGTHS
    for schedule in schedules:
        parse_schedule(schedule)
    subject = open_subject(model, device)
    place = results_place(
        "eval", subject.folder, subject.device, subject.runtime, subject.form, where
    )
    place.check()
    journals = Journals(user_cache_path("mobileinst") / "evaluate")
    pictures, clips = None, {}
    if dataset == "coco":
        pictures = evaluate_pictures(
            subject, images, annotations, journals=journals, progress=progress
        )
    else:
        for schedule in schedules:
            clips[schedule] = evaluate_clips(
                subject, images, annotations, schedule, journals=journals, progress=progress
            )
    made = EvalReport(
        model_id=subject.id,
        model_sha256=subject.sha256,
        trained=subject.trained,
        runtime=subject.runtime,
        input_size=subject.config.input_size,
        pictures=pictures,
        clips=clips,
    )
    document = with_earlier(made, place.path)
    kept = place.keep(document)
    if kept.path is not None:
        journals.remove()
    return Evaluated(made, document, kept)


def with_earlier(report: EvalReport, path: Path) -> dict[str, Any]:
    """A report as ``eval.json``, with the blocks that an earlier one of the same model has there.

    Another model's blocks are left out.
    """
    document = report.to_dict()
    earlier = _earlier(path)
    same = ("schema", "model_sha256", "runtime", "input_size")
    if earlier is not None and all(getattr(earlier, key) == document[key] for key in same):
        by_length = {**earlier.clips, **document.pop("clips", {})}
        if earlier.pictures is not None:
            document.setdefault("pictures", earlier.pictures)
        if by_length:
            document["clips"] = {
                name: by_length[name] for name in sorted(by_length, key=_by_length)
            }
    return document


class _Earlier(msgspec.Struct):
    """What is kept of an earlier evaluation's file."""

    schema: int
    model_sha256: str
    runtime: str
    input_size: list[int]
    pictures: dict[str, _Figure | dict[str, _Figure]] | None = None
    clips: dict[_Schedule, dict[str, _Figure | dict[str, _Figure]]] = {}


def _earlier(path: Path) -> _Earlier | None:
    """An earlier evaluation's file; None where there is none that can be used."""
    blame = Blame(str(path), InputError, "Remove it")
    try:
        return read_json(path, _Earlier, blame) if path.exists() else None
    except InputError:
        return None


def _by_length(schedule: str) -> tuple[bool, int]:
    length = whole(schedule, 1, MAX_CLIP)
    return (length is None, length or 0)


def _evaluate(
    subject: Subject,
    data: AnnotatedSet,
    annotations: Path,
    search: Callable[[Media], Found],
    names: tuple[str, ...],
    settings: Mapping[str, Any],
    journals: Journals,
    progress: Progress,
) -> EvalBlock:
    """Search every item that the journal does not know yet, and match all."""
    data.catalogue.require_objects("evaluate on")
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
    with journals.journal(key) as journal:
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
            skipped=dict(data.left_out.counts),
            examples=dict(data.left_out.examples),
            settings=settings,
            metrics=precision.metrics(names),
            per_class=precision.per_class(),
        )
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
