"""What was found, matched with what annotations show: average precision of pictures and clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.core.journal import Journals
from mobileinst_deploy.core.masks import rle_area, side_by_side
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import EvalBlock, EvalReport
from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.core.tracker import TrackSettings
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.samples import Media
from mobileinst_deploy.data.segmentation import to_rle
from mobileinst_deploy.measure.average_precision import PICTURE_METRICS, AveragePrecision, Truth
from mobileinst_deploy.measure.track_precision import CLIP_METRICS, TrackPrecision
from mobileinst_deploy.workflows.results_file import read_results
from mobileinst_deploy.workflows.search import (
    TRACK_SETTINGS,
    Found,
    Search,
)
from mobileinst_deploy.workflows.subject import Subject

#: What stands for the runtime, and for T, where a file of results is evaluated.
RESULTS_FILE = "results file"


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
    search = Search(subject, data, sha256_of(annotations), None, journals)
    return _evaluate(search, annotations, progress)


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
    search = Search(subject, data, sha256_of(annotations), schedule, journals, settings)
    return _evaluate(search, annotations, progress)


def evaluate_results(results: Path, annotations: Path, *, clips: bool) -> EvalReport:
    """AP of a file of results in the form that servers take, whoever made it.

    Args:
        results: JSON, or a zip file that holds it.
        annotations: Its pictures' or clips' annotations.
        clips: Whether both are in YouTube-VIS's form, else in COCO's.

    Raises:
        DatasetError: A file is broken, or the results are of other data.
    """
    data = AnnotatedSet(None, annotations, clips=clips)
    data.catalogue.require_objects("evaluate on")
    found = read_results(results, data, clips=clips)
    items = ((medium, Found(found.get(medium.id, []), len(medium.files))) for medium in data.media)
    block = _matched(items, data, annotations, sha256_of(annotations), {}, clips=clips)
    return EvalReport(
        model_id=results.name,
        model_sha256=sha256_of(results),
        trained=None,
        runtime=RESULTS_FILE,
        input_size=None,
        pictures=None if clips else block,
        clips={RESULTS_FILE: block} if clips else {},
    )


def _evaluate(search: Search, annotations: Path, progress: Progress) -> EvalBlock:
    """Search every item that the journal does not know yet, and match all."""
    data, clips = search.data, search.schedule is not None
    data.catalogue.require_objects("evaluate on")
    items = search.through(f"evaluate {annotations.name}", progress)
    return _matched(items, data, annotations, search.sha256, search.used, clips=clips)


def _matched(
    items: Iterator[tuple[Media, Found]],
    data: AnnotatedSet,
    annotations: Path,
    sha256: str,
    settings: Mapping[str, Any],
    *,
    clips: bool,
) -> EvalBlock:
    """Match what is found with what is there, item by item."""
    precision: AveragePrecision | TrackPrecision = (
        TrackPrecision(data.classes) if clips else AveragePrecision(data.classes)
    )
    keyframes = 0
    for medium, found in items:
        keyframes += found.keyframes
        precision.add(medium.size, _truth(medium, clips), found.candidates)
    return EvalBlock(
        annotations=annotations.name,
        annotations_sha256=sha256,
        items=len(data.media),
        objects=precision.objects,
        frames=sum(map(data.length, range(len(data)))),
        keyframes=keyframes,
        skipped=dict(data.left_out.counts),
        examples=dict(data.left_out.examples),
        settings=settings,
        metrics=precision.metrics(CLIP_METRICS if clips else PICTURE_METRICS),
        per_class=precision.per_class(),
    )


def _truth(medium: Media, clips: bool) -> list[Truth]:
    """What a picture or clip shows, in the form to match with."""
    truth = []
    for item in [*medium.objects, *medium.unseen]:
        rles = [None if s is None else to_rle(s, medium.size) for s in item.segmentations]
        if not clips and rles[0] is not None:
            mask, area = rles[0], float(rle_area(rles[0]))
        else:
            mask, odd = side_by_side(rles, medium.size), dict(item.odd)
            areas = [a for a in (*(rle_area(r) for r in rles if r), *odd.values()) if a]
            area = sum(areas) / max(len(areas), 1)
        if item.area is not None:
            area = item.area
        truth.append(Truth(item.label, mask, area, item.crowd, dict(item.odd)))
    return truth
