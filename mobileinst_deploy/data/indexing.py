"""The index of an annotation file: its entries checked against each other, one by one.

A file that contradicts itself is refused in one sentence. A single annotation that shows nothing
(no mask, no area, nothing inside the picture) is left out, counted by reason and remembered with an
example, since real collections hold a few of them.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from mobileinst_deploy.core.text import shown, size_text
from mobileinst_deploy.data.annotation_file import (
    AnnotationFile,
    ClipAnnotation,
    PictureAnnotation,
    Piece,
    VideoEntry,
    crowd,
    file_names,
    number,
    wrong,
)
from mobileinst_deploy.data.annotation_index import COLUMNS, Index, LeftOut
from mobileinst_deploy.data.segmentation import (
    BROKEN,
    NO_AREA,
    NO_MASK,
    REASONS,
    other_size,
    problem,
)
from mobileinst_deploy.media.picture_file import MAX_PIXELS

UNSEEN = "tracks that no frame shows"
_AREAS = list[Annotated[float, msgspec.Meta(ge=0, le=1e15)] | None] | None
_NO_MASKS = msgspec.Raw(b"null")


class _Medium(NamedTuple):
    row: int
    id: int
    size: tuple[int, int]
    files: tuple[str, ...]


class _Item(NamedTuple):
    """An annotation that can be used."""

    crowd: bool
    masks: list[msgspec.Raw | None]
    area: float | None
    odd: list[tuple[int, int]]


def index_of(file: AnnotationFile) -> Index:
    """Check a file against itself.

    Raises:
        DatasetError: It contradicts itself.
    """
    media = _media(file)
    columns = _media_columns(list(media.values()))
    categories = [
        (number(entry.id, f"categories[{n}].id", file.path), entry.name)
        for n, entry in enumerate(file.categories)
    ]
    items = _Items(file, media)
    for piece in file.pieces:
        items.add(piece)
    columns |= items.columns()
    typed = {name: np.asarray(columns[name], dtype) for name, dtype in COLUMNS.items()}
    return Index(file.text, typed, categories, items.left_out, items.unseen)


def _media(file: AnnotationFile) -> dict[int, _Medium]:
    """Pictures or clips by number."""
    media: dict[int, _Medium] = {}
    for n, entry in enumerate(file.media):
        place = f"{'videos' if isinstance(entry, VideoEntry) else 'images'}[{n}]"
        identity = number(entry.id, f"{place}.id", file.path)
        if identity in media:
            raise wrong(file.path, f"{place} is number {identity} for the second time")
        size = entry.height, entry.width
        if size[0] * size[1] > MAX_PIXELS:
            raise wrong(
                file.path,
                f"{place} states {size_text(size)} pixels, and {MAX_PIXELS:,} are the most",
            )
        media[identity] = _Medium(n, identity, size, file_names(entry, place, file.path))
    return media


def _media_columns(media: list[_Medium]) -> dict[str, object]:
    names = [name.encode("utf-8", "surrogatepass") for medium in media for name in medium.files]
    return {
        "media_ids": [medium.id for medium in media],
        "heights": [medium.size[0] for medium in media],
        "widths": [medium.size[1] for medium in media],
        "first_frames": [0, *accumulate(len(medium.files) for medium in media)],
        "first_letters": [0, *accumulate(map(len, names))],
        "names": np.frombuffer(b"".join(names), np.uint8),
    }


class _Items:
    """The annotations' columns, as they grow."""

    def __init__(self, file: AnnotationFile, media: dict[int, _Medium]) -> None:
        self.path = file.path
        self.media = media
        self.left_out, self.unseen = LeftOut(), LeftOut()
        # Of all annotations: whose they are, and their numbers.
        self.owners, self.ids = array("q"), array("q")
        # Of those that can be used: which they are, and the rest.
        self.kept = array("q")
        self.categories, self.areas = array("q"), array("d")
        self.crowds, self.seen = bytearray(), bytearray()
        self.starts, self.lengths = array("q"), array("i")
        self.odd: dict[int, list[tuple[int, int]]] = {}

    def add(self, piece: Piece) -> None:
        """Check some more annotations, and keep those that can be used."""
        begin = piece.start - _address(piece.text)
        for entry in piece.entries:
            n = len(self.owners)
            place = f"annotations[{n}]"
            category = number(entry.category_id, f"{place}.category_id", self.path)
            owner = self._owner(entry, place)
            self.owners.append(owner.row)
            self.ids.append(
                n + 1 if entry.id is None else number(entry.id, f"{place}.id", self.path)
            )
            item = _item(entry, place, owner, self.path)
            if isinstance(item, str):
                self.left_out.add(item, f"{place} of {shown(owner.files[0], 80)}")
                continue
            seen = any(mask is not None for mask in item.masks)
            if not seen:
                self.unseen.add(UNSEEN, f"{place} of {shown(owner.files[0], 80)}")
            if item.odd:
                self.odd[len(self.kept)] = item.odd
            self.kept.append(n)
            self.categories.append(category)
            self.crowds.append(item.crowd)
            self.seen.append(seen)
            self.areas.append(float("nan") if item.area is None else item.area)
            for mask in item.masks:
                self.starts.append(0 if mask is None else begin + _address(mask))
                self.lengths.append(0 if mask is None else len(memoryview(mask)))

    def _owner(self, entry: PictureAnnotation | ClipAnnotation, place: str) -> _Medium:
        if isinstance(entry, PictureAnnotation):
            parent, value = "image_id", entry.image_id
        else:
            parent, value = "video_id", entry.video_id
        owner = self.media.get(number(value, f"{place}.{parent}", self.path))
        if owner is None:
            said = shown(repr(value), 60)
            raise wrong(self.path, f"{place}.{parent} is {said}, which it does not list")
        return owner

    def columns(self) -> dict[str, object]:
        """Medium by medium, in each in the file's order."""
        kept = np.array(self.kept, np.int64)
        owners = np.array(self.owners, np.int64)
        ids = _told_apart(owners, np.array(self.ids, np.int64))[kept]
        owners = owners[kept]
        order = np.argsort(owners, kind="stable")
        counts = np.array([len(medium.files) for medium in self.media.values()], np.int64)
        # Where each annotation's masks are, before and after they are put in order.
        frames = counts[owners]
        before = np.cumsum(frames) - frames
        after = np.concatenate([[0], np.cumsum(frames[order])])
        masks = np.repeat(before[order] - after[:-1], frames[order]) + np.arange(after[-1])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        odd = [(place[n], t, pixels) for n, found in self.odd.items() for t, pixels in found]
        return {
            "first_objects": np.searchsorted(owners[order], np.arange(len(counts) + 1)),
            "object_ids": ids[order],
            "categories": np.array(self.categories, np.int64)[order],
            "crowds": np.frombuffer(self.crowds, np.bool_)[order],
            "seen": np.frombuffer(self.seen, np.bool_)[order],
            "areas": np.array(self.areas, np.float64)[order],
            "first_masks": after,
            "starts": np.array(self.starts, np.int64)[masks],
            "lengths": np.array(self.lengths, np.int32)[masks],
            "odd": np.array(odd, np.int64).reshape(-1),
        }


def _told_apart(owners: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The annotations' numbers, each another one within its medium.

    Some writers number every annotation alike; all but the first then get numbers that no file has.
    """
    order = np.lexsort((ids, owners))
    twice = (np.diff(owners[order]) == 0) & (np.diff(ids[order]) == 0)
    known: dict[int, set[int]] = {int(owner): set() for owner in owners[order[1:][twice]]}
    for n in np.flatnonzero(np.isin(owners, list(known))).tolist():
        numbers = known[int(owners[n])]
        if int(ids[n]) in numbers:
            ids[n] = -n - 1
        numbers.add(int(ids[n]))
    return ids


def _address(text: bytes | msgspec.Raw) -> int:
    """Where in memory it lies: msgspec's raw values are views of what they were read from."""
    found: int = np.frombuffer(text, np.uint8).__array_interface__["data"][0]
    return found


def _item(
    entry: PictureAnnotation | ClipAnnotation, place: str, owner: _Medium, path: Path
) -> _Item | str:
    """What can be used of an annotation, or why it is left out."""
    segmentations: list[msgspec.Raw]
    if isinstance(entry, PictureAnnotation):
        segmentations, area = [entry.segmentation], entry.area
    else:
        segmentations, area = _by_frame(entry, place, owner, path), _mean_area(entry.areas)
    problems = [problem(segmentation, owner.size) for segmentation in segmentations]
    clip = isinstance(entry, ClipAnnotation)
    odd = _odd(segmentations, problems, owner.size) if clip else []
    if all(problems) and not odd:
        worst = max((p for p in problems if p), key=REASONS.index)
        if not clip or worst not in (NO_MASK, NO_AREA):
            return worst
    return _Item(
        crowd(entry.iscrowd, f"{place}.iscrowd", path),
        [None if why else s for s, why in zip(segmentations, problems, strict=True)],
        area,
        odd,
    )


def _odd(
    segmentations: list[msgspec.Raw], problems: list[str | None], size: tuple[int, int]
) -> list[tuple[int, int]]:
    """The frames whose mask is whole and of another size than the clip, with its pixels."""
    broken = [t for t, why in enumerate(problems) if why == BROKEN]
    areas = [(t, other_size(segmentations[t], size)) for t in broken]
    return [(t, area) for t, area in areas if area]


def _mean_area(areas: msgspec.Raw) -> float | None:
    """The mean of what a track's ``areas`` state; None where they state nothing usable."""
    try:
        stated = [area for area in msgspec.json.decode(areas, type=_AREAS) or () if area]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return sum(stated) / len(stated) if stated else None


def _by_frame(entry: ClipAnnotation, place: str, owner: _Medium, path: Path) -> list[msgspec.Raw]:
    """A clip annotation's masks, one for each frame."""
    try:
        masks = msgspec.json.decode(entry.segmentations, type=list[msgspec.Raw] | None)
    except msgspec.DecodeError:
        raise wrong(path, f"{place}.segmentations is not a list") from None
    if not masks:
        return [_NO_MASKS] * len(owner.files)
    if len(masks) != len(owner.files):
        raise wrong(
            path,
            f"{place} has {len(masks)} masks, and its video {owner.id} {len(owner.files)} frames",
        )
    return masks
