"""The text of an annotation file in COCO's or YouTube-VIS's form, as typed entries.

Only what is used is decoded: masks stay the text that they are until one is drawn, so that the
whole of COCO takes little more memory than its file. Numbers that pandas or a web form wrote as
text or as floats are taken where people's files have them: in numbers of things and in ``iscrowd``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from mobileinst_deploy.core.documents import MAX_WHOLE, Blame, parse_json, read_within
from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.media.picture_file import MAX_SIDE

MAX_BYTES = 1 << 30
#: Pictures, annotations and all other objects of a file; COCO has a million.
MAX_OBJECTS = 5_000_000
MAX_FRAMES = 100_000
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


@places(0)
def read_file(path: Path, *, clips: bool) -> PictureFile | ClipFile:
    """Read an annotation file; what it says is checked entry by entry, but not against itself.

    Raises:
        DatasetError: It cannot be read, is too large, no JSON, in the other form, or an entry lacks
            a field or holds another type; then it is named.
    """
    blame = Blame(str(path), DatasetError, _DOWNLOAD)
    data = read_within(path, MAX_BYTES, blame)
    if data.count(b"{") > MAX_OBJECTS:
        raise blame.wrong(f"it has more than {MAX_OBJECTS:,} entries")
    if b"NaN" in data or b"Infinity" in data:
        data = _NO_NUMBER.sub(lambda m: m[0] if m[0][:1] == b'"' else b"null", data)
    outline = parse_json(data, _Outline, blame)
    wanted, other = ("videos", "images") if clips else ("images", "videos")
    if bytes(getattr(outline, wanted)) == b"null":
        hint = f"; it lists {other}" if bytes(getattr(outline, other)) != b"null" else ""
        raise DatasetError(
            f"{path} has no list of {wanted}{hint}",
            "Give an annotation file in COCO's form for pictures, in YouTube-VIS's for clips",
        )
    return parse_json(data, ClipFile, blame) if clips else parse_json(data, PictureFile, blame)


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
