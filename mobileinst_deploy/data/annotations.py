"""What COCO's and YouTube-VIS's annotation files share, checked as it is read.

A file that contradicts itself is refused in one sentence. A single annotation that shows nothing
(no mask, no area, nothing inside the picture) is left out and counted, since real collections hold
a few of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import hotcoco.mask
import numpy as np

from mobileinst_deploy.core.errors import DatasetError, MediaError
from mobileinst_deploy.core.masks import Rle, decode, encode, rle_area, rle_size
from mobileinst_deploy.media.pictures import read_picture

NO_MASK = "annotations without a mask"
NO_AREA = "annotations of no area"
OUTSIDE = "annotations outside their picture"
BROKEN = "annotations with a broken mask"


@dataclass(frozen=True)
class Sample:
    """One picture and the K objects that it shows.

    Attributes:
        image_id: Of the picture, or of the clip that it is a frame of.
        image: (H, W, 3) uint8, RGB.
        masks: (K, H, W) bool, none empty.
        labels: (K,) int64, class indices.
        crowd: (K,) bool; True for a region of many objects that nobody told apart.
        track_ids: (K,) int64, the annotations' own numbers: the same in all frames of a clip.
    """

    image_id: int
    image: np.ndarray = field(repr=False)
    masks: np.ndarray = field(repr=False)
    labels: np.ndarray
    crowd: np.ndarray
    track_ids: np.ndarray


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, in a picture or throughout a clip.

    Attributes:
        id: Its number in the file.
        label: Class index.
        crowd: Whether it is a region of many objects.
        segmentations: One entry per frame, a single one for a picture: COCO's polygons or run
            lengths, or None where the object does not show.
        area: In pixels as the file states it, or None.
    """

    id: int
    label: int
    crowd: bool
    segmentations: tuple[Any, ...]
    area: float | None


@dataclass(frozen=True)
class Media:
    """A picture or a clip as the file lists it.

    Attributes:
        id: Its number in the file.
        size: (height, width) in pixels.
        files: Its frames' files, relative to the pictures' folder; a single one for a picture.
        objects: What it shows.
    """

    id: int
    size: tuple[int, int]
    files: tuple[str, ...]
    objects: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class Catalogue:
    """An annotation file, read and checked.

    Attributes:
        media: Pictures or clips in the file's order.
        classes: Class names in label order.
        category_ids: The file's own number of each class, or None for a class that it lacks.
        skipped: How many of what was left out, by reason.
    """

    media: list[Media]
    classes: tuple[str, ...]
    category_ids: tuple[int | None, ...]
    skipped: Counter[str]


def read_catalogue(
    annotations: Path, folder: Path, classes: Sequence[str] | None, *, clips: bool
) -> Catalogue:
    """Read an annotation file and check it against itself, a model and the pictures' folder.

    Args:
        annotations: The JSON file.
        folder: Where its pictures are.
        classes: A model's class names; default: the file's own, in the order of their numbers.
        clips: Whether it is in YouTube-VIS's form, else in COCO's.

    Raises:
        DatasetError: The file is broken, contradicts itself, names classes that the model does not
            have, or names pictures that are missing.
    """
    kind = "videos" if clips else "images"
    document = _read_json(annotations, kind)
    try:
        names, labels = _match_classes(document["categories"], classes, annotations)
        media = {}
        for number, entry in enumerate(document[kind]):
            medium = _medium(entry, f"{kind[:-1]} {number}", annotations, clips=clips)
            if medium.id in media:
                raise _wrong(annotations, f"lists {kind[:-1]} {medium.id} twice")
            media[medium.id] = medium
        skipped: Counter[str] = Counter()
        parent = "video_id" if clips else "image_id"
        for number, entry in enumerate(document["annotations"]):
            owner = media.get(_whole(entry[parent]))
            label = labels.get(_whole(entry["category_id"]))
            if owner is None:
                raise _wrong(
                    annotations,
                    f"has an annotation of {parent} {entry[parent]}, which it does not list",
                )
            if label is None:
                raise _wrong(
                    annotations,
                    f"has an annotation of category {entry['category_id']}, which it does not list",
                )
            found = _annotation(entry, number, label, owner, annotations, clips=clips)
            if isinstance(found, str):
                skipped[found] += 1
            else:
                owner.objects.append(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"field {error}" if isinstance(error, KeyError) else str(error)
        raise _wrong(annotations, f"lacks or misspells something: {detail}") from error
    _check_files(media.values(), folder, annotations)
    ids = {label: category for category, label in labels.items()}
    return Catalogue(
        list(media.values()), names, tuple(ids.get(i) for i in range(len(names))), skipped
    )


def read_frame(medium: Media, frame: int, folder: Path) -> np.ndarray:
    """Read one picture of the catalogue as (H, W, 3) uint8, RGB.

    Args:
        medium: The picture or clip.
        frame: Which frame of it, from 0.
        folder: Where the pictures are.

    Raises:
        MediaError: The picture cannot be read, or has another size than the file states.
    """
    path = folder / medium.files[frame]
    image = read_picture(path)
    if image.shape[:2] != medium.size:
        raise MediaError(
            f"{path} has {image.shape[0]}x{image.shape[1]} pixels, and its annotations are for "
            f"{medium.size[0]}x{medium.size[1]}",
            "Use the pictures that were annotated",
        )
    return image


def read_sample(medium: Media, frame: int, folder: Path) -> Sample:
    """Read one picture and rasterise what it shows; the arguments are those of :func:`read_frame`.

    Raises:
        MediaError: The picture cannot be read, or has another size than the file states.
    """
    image = read_frame(medium, frame, folder)
    shown: list[tuple[Annotation, np.ndarray]] = []
    for item in medium.objects:
        segmentation = item.segmentations[frame]
        if segmentation is None:
            continue
        mask = to_mask(segmentation, medium.size)
        if mask.any():
            shown.append((item, mask))
    return Sample(
        image_id=medium.id,
        image=image,
        masks=np.stack([mask for _, mask in shown]) if shown else np.zeros((0, *medium.size), bool),
        labels=np.array([item.label for item, _ in shown], np.int64),
        crowd=np.array([item.crowd for item, _ in shown], bool),
        track_ids=np.array([item.id for item, _ in shown], np.int64),
    )


def to_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W), bool, of a checked segmentation: polygons or run lengths."""
    return decode(to_rle(segmentation, size))


def to_rle(segmentation: Any, size: tuple[int, int]) -> Rle:
    """The compressed run lengths of a checked segmentation: polygons or run lengths."""
    if isinstance(segmentation, list):
        polygons = [p for p in segmentation if len(p) >= 6]
        merged = hotcoco.mask.merge(hotcoco.mask.frPyObjects(polygons, *size))
        return {"size": list(size), "counts": merged["counts"].decode("ascii")}
    if isinstance(segmentation["counts"], str):
        return {"size": list(size), "counts": segmentation["counts"]}
    return encode(decode(segmentation))


def _read_json(path: Path, kind: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}", "Check the path of the annotations"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} is not whole JSON ({error})", "Download or write the annotations again"
        ) from error
    wanted = (kind, "annotations", "categories")
    if not isinstance(document, dict):
        raise _wrong(path, "is no annotation file")
    for key in wanted:
        if not isinstance(document.get(key), list):
            other = "images" if kind == "videos" else "videos"
            hint = f"; it lists {other}" if isinstance(document.get(other), list) else ""
            raise DatasetError(
                f"{path} has no list of {key}{hint}",
                "Give an annotation file in COCO's form for pictures, in YouTube-VIS's for clips",
            )
    return document


def _match_classes(
    categories: list[Any], classes: Sequence[str] | None, path: Path
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in label order and the label of each of the file's category numbers."""
    names = {_whole(entry["id"]): entry["name"] for entry in categories}
    if not names or not all(isinstance(name, str) and name for name in names.values()):
        raise _wrong(path, "names no categories, or one without a name")
    if len(names) != len(categories) or len(set(names.values())) != len(names):
        raise _wrong(path, "lists a category twice")
    wanted = tuple(classes) if classes is not None else tuple(names[i] for i in sorted(names))
    labels = {name: label for label, name in enumerate(wanted)}
    unknown = [name for name in names.values() if name not in labels]
    if unknown:
        lacking = [name for name in wanted if name not in names.values()]
        rest = f", and lacks the model's {_listed(lacking)}" if lacking else ""
        raise DatasetError(
            f"{path} names classes that the model does not have: {_listed(unknown)}{rest}",
            "Use a model and annotations of the same classes",
        )
    return wanted, {category: labels[name] for category, name in names.items()}


def _medium(entry: Mapping[str, Any], where: str, path: Path, *, clips: bool) -> Media:
    files = entry["file_names"] if clips else [entry["file_name"]]
    if not isinstance(files, list) or not files:
        raise _wrong(path, f"lists no picture for {where}")
    for name in files:
        pure = PurePosixPath(name)
        if not name or pure.is_absolute() or ".." in pure.parts or "\0" in name:
            raise _wrong(path, f"names {name!r} in {where}, a path outside the pictures' folder")
    size = _whole(entry["height"]), _whole(entry["width"])
    if min(size) < 1 or max(size) > 2**15:
        raise _wrong(path, f"states the size {size[0]}x{size[1]} for {where}")
    return Media(_whole(entry["id"]), size, tuple(files))


def _annotation(
    entry: Mapping[str, Any], number: int, label: int, owner: Media, path: Path, *, clips: bool
) -> Annotation | str:
    """The annotation, or why it is left out."""
    if clips:
        segmentations = entry.get("segmentations") or [None] * len(owner.files)
        if len(segmentations) != len(owner.files):
            raise _wrong(
                path,
                f"has an annotation of {len(segmentations)} masks for video {owner.id} of "
                f"{len(owner.files)} frames",
            )
    else:
        segmentations = [entry.get("segmentation")]
    problems = [_problem(segmentation, owner.size) for segmentation in segmentations]
    if all(problems):
        # The most telling one: a clip's object may well be without a mask in some frames.
        return max((p for p in problems if p), key=(NO_MASK, NO_AREA, OUTSIDE, BROKEN).index)
    area = entry.get("area")
    return Annotation(
        id=_whole(entry.get("id", number + 1)),
        label=label,
        crowd=bool(entry.get("iscrowd", 0)),
        segmentations=tuple(
            None if problem else segmentation
            for segmentation, problem in zip(segmentations, problems, strict=True)
        ),
        area=float(area) if isinstance(area, (int, float)) and math.isfinite(area) else None,
    )


def _problem(segmentation: Any, size: tuple[int, int]) -> str | None:
    """Why a segmentation shows nothing, found without drawing it; None when it may show some."""
    if not segmentation:
        return NO_MASK
    if isinstance(segmentation, dict):
        try:
            if rle_size(segmentation) != size:
                return BROKEN
            return None if rle_area(segmentation) else NO_AREA
        except DatasetError:
            return BROKEN
    if not isinstance(segmentation, list):
        return BROKEN
    try:
        polygons = [np.asarray(p, np.float64).reshape(-1, 2) for p in segmentation if len(p) >= 6]
    except (TypeError, ValueError):
        return BROKEN
    if not polygons:
        return NO_MASK
    points = np.concatenate(polygons)
    if not np.isfinite(points).all():
        return BROKEN
    (left, top), (right, bottom) = points.min(0), points.max(0)
    if left >= size[1] or top >= size[0] or right <= 0 or bottom <= 0:
        return OUTSIDE
    # Only what is thinner than a pixel, or mostly outside, can miss every pixel's centre: drawing
    # the rest just to see that it is there would take minutes for the whole of COCO.
    area = sum(_area(polygon) for polygon in polygons)
    inside = left >= 0 and top >= 0 and right <= size[1] and bottom <= size[0]
    if (area <= max(right - left, bottom - top) or not inside) and not rle_area(
        to_rle(segmentation, size)
    ):
        return NO_AREA
    return None


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _check_files(media: Iterable[Media], folder: Path, path: Path) -> None:
    """Insist that every picture is there, at the cost of one directory listing per folder."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder of pictures", "Check the pictures' folder")
    listings: dict[Path, set[str]] = {}
    missing, total = [], 0
    for medium in media:
        for name in medium.files:
            total += 1
            file = folder / name
            if file.parent not in listings:
                there = file.parent.is_dir()
                listings[file.parent] = {p.name for p in file.parent.iterdir()} if there else set()
            if file.name not in listings[file.parent]:
                missing.append(name)
    if missing:
        raise DatasetError(
            f"{len(missing)} of the {total} pictures of {path} are missing from {folder}, "
            f"the first is {missing[0]}",
            "Check that the pictures' folder belongs to the annotations",
        )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _wrong(path: Path, what: str) -> DatasetError:
    return DatasetError(f"{path} {what}", "Download or write the annotations again")


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
