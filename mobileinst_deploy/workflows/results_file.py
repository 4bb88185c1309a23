"""Results in the form that COCO's and YouTube-VIS's servers take, written and read.

COCO: a list of ``image_id``, ``category_id``, ``segmentation`` (compressed run lengths) and
``score``. YouTube-VIS: a list of ``video_id``, ``category_id``, ``segmentations`` (one or null for
each frame) and ``score``. Numbers are those of the annotation file. A zip file holds one JSON file
of its own name without ``.zip``: YouTube-VIS's server looks for ``results.json``.
"""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from mobileinst_deploy.core.documents import MAX_WHOLE, Blame, parse_json, read_within
from mobileinst_deploy.core.errors import ConfigError, DatasetError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.masks import Rle, apart, rle_runs, rle_size, side_by_side
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.samples import Media
from mobileinst_deploy.measure.average_precision import Candidate
from mobileinst_deploy.workflows.search import Found

SUFFIXES = (".json", ".zip")
#: Read whole, packed or not: far more than the results of any validation split.
MAX_BYTES = 1 << 30
_Number = Annotated[int, msgspec.Meta(ge=-MAX_WHOLE, le=MAX_WHOLE)]
_Score = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
_Side = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class _Mask(msgspec.Struct):
    size: tuple[_Side, _Side]
    counts: str

    def rle(self) -> Rle:
        return {"size": list(self.size), "counts": self.counts}


class _PictureResult(msgspec.Struct):
    image_id: _Number
    category_id: _Number
    segmentation: _Mask
    score: _Score


class _ClipResult(msgspec.Struct):
    video_id: _Number
    category_id: _Number
    segmentations: list[_Mask | None]
    score: _Score


def is_results_file(path: Path) -> bool:
    """Whether a path names a file of results, going by its ending."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def require_results_name(path: Path) -> None:
    """Refuse a name that does not say which form the file shall have.

    Raises:
        ConfigError: It ends neither in ``.json`` nor in ``.zip``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{path} ends neither in .json nor in .zip", "Name it results.json or results.json.zip"
        )


def write_results(
    path: Path, found: Iterable[tuple[Media, Found]], data: AnnotatedSet, *, clips: bool
) -> int:
    """Write what was found, item by item, whole or not at all.

    Args:
        path: The file; one that ends in ``.zip`` is packed.
        found: What was found in each picture or clip.
        data: Gives the numbers of classes; what is of a class that it lacks is left out.
        clips: Whether in YouTube-VIS's form, else in COCO's.

    Returns:
        How many results it holds.

    Raises:
        OutputError: It cannot be written.
    """
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        with _opened(temporary, path) as file:
            file.write(b"[")
            for medium, one in found:
                for entry in _entries(medium, one, data, clips):
                    file.write(b",\n" if count else b"\n")
                    file.write(json.dumps(entry, separators=(",", ":")).encode("ascii"))
                    count += 1
            file.write(b"\n]\n")

    write_atomically(path, write)
    return count


@contextmanager
def _opened(temporary: Path, path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() != ".zip":
        with temporary.open("wb") as file:
            yield file
        return
    member = path.stem if path.stem.endswith(".json") else f"{path.stem}.json"
    with (
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(member, "w", force_zip64=True) as file,
    ):
        yield file


def _entries(
    medium: Media, found: Found, data: AnnotatedSet, clips: bool
) -> Iterator[dict[str, Any]]:
    for candidate in found.candidates:
        shown: dict[str, Any] = {"segmentation": candidate.mask}
        if clips:
            shown = {"segmentations": apart(candidate.mask, len(medium.files))}
        for label, score in candidate.scores:
            category = data.category_ids[label]
            if category is not None:
                owner = {"video_id" if clips else "image_id": medium.id}
                yield {**owner, "category_id": category, **shown, "score": score}


def read_results(path: Path, data: AnnotatedSet, *, clips: bool) -> dict[int, list[Candidate]]:
    """Read a file of results, checked against the annotations that it belongs to.

    Args:
        path: JSON, or a zip file with one JSON file in it.
        data: The annotations.
        clips: Whether in YouTube-VIS's form, else in COCO's.

    Returns:
        What was found, by the number of the picture or clip.

    Raises:
        DatasetError: The file is broken or too large, or speaks of other pictures, clips, classes
            or sizes than the annotations.
    """
    blame = Blame(str(path), DatasetError, "Write the results again")
    text = _text(path, blame)
    media = {medium.id: medium for medium in data.media}
    labels = {number: i for i, number in enumerate(data.category_ids) if number is not None}
    found: dict[int, list[Candidate]] = {}
    entries: Sequence[_ClipResult | _PictureResult] = (
        parse_json(text, list[_ClipResult], blame)
        if clips
        else parse_json(text, list[_PictureResult], blame)
    )
    for n, entry in enumerate(entries):
        item = entry.video_id if isinstance(entry, _ClipResult) else entry.image_id
        medium, label = media.get(item), labels.get(entry.category_id)
        if medium is None or label is None:
            what = f"number {item}" if medium is None else f"category {entry.category_id}"
            raise DatasetError(
                f"{path}: result {n} is of {what}, which the annotations do not list",
                "Give the annotations that the results belong to",
            )
        mask = _mask(entry, medium, n, path)
        found.setdefault(item, []).append(Candidate(mask, ((label, entry.score),)))
    return found


def _mask(entry: _PictureResult | _ClipResult, medium: Media, n: int, path: Path) -> Rle:
    try:
        if isinstance(entry, _PictureResult):
            rle = entry.segmentation.rle()
            rle_runs(rle)
            right = rle_size(rle) == medium.size
        else:
            rles = [None if mask is None else mask.rle() for mask in entry.segmentations]
            right = len(rles) == len(medium.files)
            rle = side_by_side(rles, medium.size)
    except DatasetError as error:
        raise DatasetError(f"{path}: result {n}: {error.cause}", error.next_step) from error
    if not right:
        raise DatasetError(
            f"{path}: result {n} has another size or number of frames than number {medium.id}",
            "Give masks at the size of the pictures, one or null for each frame",
        )
    return rle


# What zipfile and the three ways to unpack raise at damaged data.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, NotImplementedError, ValueError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


def _text(path: Path, blame: Blame) -> bytes:
    if path.suffix.lower() != ".zip":
        return read_within(path, MAX_BYTES, blame)
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [
                one
                for one in archive.infolist()
                # macOS packs a file of attributes there beside each file.
                if one.filename.endswith(".json") and not one.filename.startswith("__MACOSX/")
            ]
            if len(inside) != 1:
                raise blame.wrong(f"it holds {len(inside)} JSON files, not one")
            if inside[0].file_size > MAX_BYTES:
                raise blame.wrong(f"it unpacks to more than {MAX_BYTES >> 30} GiB")
            with archive.open(inside[0]) as file:
                text = file.read(inside[0].file_size + 1)
    except _UNREADABLE as error:
        raise blame.wrong(f"it is no zip file that can be read: {error}") from error
    return text
