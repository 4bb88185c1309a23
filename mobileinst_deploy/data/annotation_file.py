"""The text of an annotation file in COCO's or YouTube-VIS's form, as typed entries.

Only what is used is decoded: masks stay the text that they are until one is drawn. Numbers that
pandas or a web form wrote as text or as floats are taken where people's files have them: in numbers
of things and in ``iscrowd``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

import msgspec

from mobileinst_deploy.core.documents import MAX_WHOLE, Blame, as_utf8, parse_json, read_within
from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.data.annotation_text import Cut, HeldText, Text, WholeText, cut
from mobileinst_deploy.media.picture_file import MAX_SIDE

MAX_BYTES = 1 << 30
#: Pictures, annotations and all other objects of a file; COCO has a million.
MAX_OBJECTS = 5_000_000
MAX_FRAMES = 100_000
_TOO_MANY = f"it has more than {MAX_OBJECTS:,} entries"
_DOWNLOAD = "Download or write the annotations again"
# Python's and pandas' writers put these where JSON has no word; strings are stepped over.
_NO_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*+"|-?\b(?:NaN|Infinity)\b')

Scalar = bool | int | float | str | None
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]


class Category(msgspec.Struct):
    """A class of the file."""

    id: Scalar
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class PictureEntry(msgspec.Struct):
    """An entry of ``images``."""

    id: Scalar
    file_name: str
    height: Side
    width: Side


class VideoEntry(msgspec.Struct):
    """An entry of ``videos``."""

    id: Scalar
    file_names: msgspec.Raw
    height: Side
    width: Side


class PictureAnnotation(msgspec.Struct):
    """An annotation of a picture; its mask as JSON text."""

    image_id: Scalar
    category_id: Scalar
    id: Scalar = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: Scalar = 0
    area: Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)] | None = None


class ClipAnnotation(msgspec.Struct):
    """An annotation of a clip; its masks as JSON text."""

    video_id: Scalar
    category_id: Scalar
    id: Scalar = None
    segmentations: msgspec.Raw = msgspec.Raw(b"null")
    areas: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: Scalar = 0


class PictureFile(msgspec.Struct):
    """A file in COCO's form; a split whose annotations are kept back has none."""

    images: list[PictureEntry]
    categories: list[Category]
    annotations: list[PictureAnnotation] | None = None


class ClipFile(msgspec.Struct):
    """A file in YouTube-VIS's form; a split whose annotations are kept back has none."""

    videos: list[VideoEntry]
    categories: list[Category]
    annotations: list[ClipAnnotation] | None = None


class _Outline(msgspec.Struct):
    """Which form a file has, without reading it."""

    images: msgspec.Raw = msgspec.Raw(b"null")
    videos: msgspec.Raw = msgspec.Raw(b"null")


class Piece(NamedTuple):
    """Some annotations in a row.

    Attributes:
        entries: They; their masks are views of ``text``.
        text: What they were read from.
        start: Where that begins in the file's whole text.
    """

    entries: Sequence[PictureAnnotation | ClipAnnotation]
    text: bytes
    start: int


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation file of which every entry is checked, but not the one against the other.

    Attributes:
        path: The file.
        text: Its text.
        media: What it lists, pictures or clips.
        categories: Its classes.
        pieces: Its annotations in order, to be gone through once: of all of COCO they would take
            three times the memory that the rest does.
    """

    path: Path
    text: Text
    media: Sequence[PictureEntry | VideoEntry]
    categories: Sequence[Category]
    pieces: Iterator[Piece]


def open_file(path: Path, held: HeldText | None, *, clips: bool) -> AnnotationFile:
    """Open an annotation file.

    Args:
        path: The file.
        held: The same, held open, where it is to be read in pieces if that can be done.
        clips: Whether it is in YouTube-VIS's form, else in COCO's.

    Raises:
        DatasetError: It cannot be read, is too large, no JSON, in the other form, or an entry lacks
            a field or holds another type; then it is named. Of annotations that is raised as they
            are gone through.
    """
    found = None if held is None else cut(held)
    if held is None or found is None:
        text, document = _whole(path, clips)
        pieces = iter([Piece(document.annotations or [], text.data, 0)])
        document.annotations = None
        return AnnotationFile(path, text, _media(document), document.categories, pieces)
    document = _document(found.rest, path, clips)
    pieces = _pieces(held, found, path, clips)
    return AnnotationFile(path, held, _media(document), document.categories, pieces)


def _whole(path: Path, clips: bool) -> tuple[WholeText, PictureFile | ClipFile]:
    blame = Blame(str(path), DatasetError, _DOWNLOAD)
    data = read_within(path, MAX_BYTES, blame)
    if data.count(b"{") > MAX_OBJECTS:
        raise blame.wrong(_TOO_MANY)
    if b"NaN" in data or b"Infinity" in data:
        data = _NO_NUMBER.sub(lambda m: m[0] if m[0][:1] == b'"' else b"null", data)
    data = as_utf8(data)
    return WholeText(data), _document(data, path, clips)


def _document(data: bytes, path: Path, clips: bool) -> PictureFile | ClipFile:
    blame = Blame(str(path), DatasetError, _DOWNLOAD)
    outline = parse_json(data, _Outline, blame)
    wanted, other = ("videos", "images") if clips else ("images", "videos")
    if bytes(getattr(outline, wanted)) == b"null":
        hint = f"; it lists {other}" if bytes(getattr(outline, other)) != b"null" else ""
        raise DatasetError(
            f"{path} has no list of {wanted}{hint}",
            "Give an annotation file in COCO's form for pictures, in YouTube-VIS's for clips",
        )
    return parse_json(data, ClipFile, blame) if clips else parse_json(data, PictureFile, blame)


def _media(document: PictureFile | ClipFile) -> Sequence[PictureEntry | VideoEntry]:
    return document.videos if isinstance(document, ClipFile) else document.images


def _pieces(held: HeldText, found: Cut, path: Path, clips: bool) -> Iterator[Piece]:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
        list[ClipAnnotation] if clips else list[PictureAnnotation]
    )
    objects = found.rest.count(b"{")
    for start, end in found.pieces:
        text = b"[%b]" % held.read(start, end - start)
        objects += text.count(b"{")
        if objects > MAX_OBJECTS:
            raise wrong(path, _TOO_MANY)
        try:
            entries = decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _whole(path, clips)  # says what is wrong, and where in the whole
            held.require_unchanged()
            raise
        yield Piece(entries, text, start - 1)
    held.require_unchanged()


def number(value: Scalar, place: str, path: Path) -> int:
    """An entry's number: a whole number, a text of digits, or a float without a fraction.

    Args:
        value: As the file has it.
        place: For messages, such as ``annotations[3].image_id``.
        path: The file.

    Raises:
        DatasetError: It is anything else.
    """
    found: int | None = None
    if isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        found = value
    elif isinstance(value, float):
        found = int(value) if value.is_integer() else None
    elif value.isascii() and value.isdigit() and len(value) <= 16:
        found = int(value)
    if found is None or abs(found) > MAX_WHOLE:
        raise wrong(path, f"{place} is {_said(value)}, not a whole number")
    return found


def crowd(value: Scalar, place: str, path: Path) -> bool:
    """Whether ``iscrowd`` says yes: 1, true or "1"; 0, false, "0" and null say no.

    Raises:
        DatasetError: It is anything else.
    """
    if value in (1, "1"):
        return True
    if value in (0, "0", None):
        return False
    raise wrong(path, f"{place} is {_said(value)}, not 0 or 1")


def file_names(entry: PictureEntry | VideoEntry, place: str, path: Path) -> tuple[str, ...]:
    """The pictures of an entry, each a path below the pictures' folder.

    Raises:
        DatasetError: There is none, or one leads elsewhere.
    """
    if isinstance(entry, PictureEntry):
        names, field = [entry.file_name], f"{place}.file_name"
    else:
        field = f"{place}.file_names"
        if bytes(entry.file_names).count(b",") >= MAX_FRAMES:
            raise wrong(path, f"{field} has more than {MAX_FRAMES:,} entries")
        blame = Blame(f"{path}: {field}", DatasetError, _DOWNLOAD)
        names = parse_json(bytes(entry.file_names), list[str], blame)
    if not names:
        raise wrong(path, f"{field} lists no picture")
    for name in names:
        parts = PurePosixPath(name).parts
        leads_out = not parts or name.startswith("/") or ".." in parts or "\0" in name
        if leads_out or any(len(os.fsencode(part)) > 255 for part in parts) or len(name) > 4000:
            raise wrong(path, f"{field} names {shown(name, 80)!r}, no path in the pictures' folder")
    return tuple(names)


def wrong(path: Path, what: str) -> DatasetError:
    """The error for a file of which ``what`` is wrong."""
    return DatasetError(f"{path}: {what}", _DOWNLOAD)


def _said(value: Scalar) -> str:
    return "null" if value is None else shown(repr(value), 60)
