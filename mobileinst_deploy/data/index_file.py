"""Indices of annotation files on disk, which processes map instead of reading the file again.

They lie in the user's cache folder under the sha256 of the annotation file, so that a changed file
has another index and a copied one has the same. What is not whole, not ours or of another version
is made anew. Whoever makes one holds the folder's lock, for which others wait rather than make the
same. Where nothing can be written, each process makes its own and keeps it in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import platformdirs

from mobileinst_deploy.core.documents import Sha256, Whole
from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.data.annotation_file import MAX_BYTES, open_file
from mobileinst_deploy.data.annotation_index import COLUMNS, Index, LeftOut
from mobileinst_deploy.data.annotation_text import SMALL_BYTES, HeldText
from mobileinst_deploy.data.indexing import index_of

#: Of what an index says: raise it whenever other annotations are kept, or other things of them.
VERSION = 1
#: How many are kept, the latest; COCO's takes 45 MB.
KEPT = 8
_MAGIC = b"mobileinst annotation index\n"
_ALIGNED = 64
_HEAD_BYTES = 16 << 20


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    """What an index file begins with, as JSON.

    Attributes:
        version: :data:`VERSION`.
        annotations: The sha256 of the annotation file.
        clips: Whether that was read in YouTube-VIS's form, else in COCO's.
        categories: (number, name) as the file lists them.
        left_out: (count, reason, example); so ``unseen``.
        counts: How many numbers each column has.
        sha256: Of the columns, which follow one after the other, each at a multiple of 64 bytes.
    """

    version: int
    annotations: Sha256
    clips: bool
    categories: list[tuple[int, str]]
    left_out: list[tuple[Whole, str, str]]
    unseen: list[tuple[Whole, str, str]]
    counts: dict[str, Whole]
    sha256: Sha256


class Key(NamedTuple):
    """What an index is of."""

    sha256: str
    clips: bool

    @property
    def path(self) -> Path:
        """Where it is kept."""
        form = "clips" if self.clips else "pictures"
        return index_folder() / f"{self.sha256[:32]}-{form}.index"


def index_folder() -> Path:
    """The folder of all indices; it may be removed at any time."""
    return Path(platformdirs.user_cache_dir("mobileinst")) / "annotations"


def open_index(path: Path, *, clips: bool) -> Index:
    """The index of an annotation file; of a small one it is made anew, which takes less time.

    Args:
        path: The file.
        clips: Whether it is in YouTube-VIS's form, else in COCO's.

    Raises:
        DatasetError: The file is broken or contradicts itself.
    """
    held = _held(path)
    if held is None:
        return index_of(open_file(path, None, clips=clips))
    key = Key(held.sha256(), clips)
    found = map_index(key, held)
    if found is not None:
        return found
    with _making():
        found = map_index(key, held)  # another process may have made it meanwhile
        if found is not None:
            return found
        made = index_of(open_file(path, held, clips=clips))
        if made.text is not held:
            return made  # its text is not the file's: some numbers in it are no JSON
        with contextlib.suppress(OutputError):
            write_index(key, made)
        # Mapped, so that it is in memory once for all processes; or as it was made.
        return map_index(key, held) or made


def write_index(key: Key, index: Index) -> None:
    """Keep an index, and let go of the oldest ones.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    columns = {name: np.ascontiguousarray(index.columns[name], COLUMNS[name]) for name in COLUMNS}
    blocks = [column.tobytes() for column in columns.values()]
    body = b"".join(block + bytes(-len(block) % _ALIGNED) for block in blocks)
    head = _Head(
        version=VERSION,
        annotations=key.sha256,
        clips=key.clips,
        categories=list(index.categories),
        left_out=_rows(index.left_out),
        unseen=_rows(index.unseen),
        counts={name: len(column) for name, column in columns.items()},
        sha256=hashlib.sha256(body).hexdigest(),
    )
    text = _MAGIC + msgspec.json.encode(head) + b"\n"
    text += bytes(-len(text) % _ALIGNED)

    def write(temporary: Path) -> None:
        temporary.chmod(0o600)
        with temporary.open("wb") as file:
            file.write(text)
            file.write(body)

    write_atomically(key.path, write)
    with contextlib.suppress(OSError):
        kept = sorted(key.path.parent.glob("*.index"), key=lambda p: p.stat().st_mtime)
        for old in kept[:-KEPT]:
            old.unlink(missing_ok=True)


def map_index(key: Key, held: HeldText) -> Index | None:
    """A kept index.

    Args:
        key: What it is of.
        held: The annotation file of that content.

    Returns:
        None where there is none, or it is not what this program and this user have written.
    """
    mapped = _mapped(key.path)
    if mapped is None:
        return None
    end = mapped.find(b"\n", len(_MAGIC), _HEAD_BYTES)
    if mapped[: len(_MAGIC)] != _MAGIC or end < 0:
        return None
    try:
        head = msgspec.json.decode(mapped[len(_MAGIC) : end], type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if (head.version, head.annotations, head.clips) != (VERSION, key.sha256, key.clips):
        return None
    columns = _columns(mapped, _padded(end + 1), head)
    if columns is None:
        return None
    index = Index(held, columns, head.categories, _left_out(head.left_out), _left_out(head.unseen))
    return index if index.fits(held.size) else None


def _columns(mapped: mmap.mmap, start: int, head: _Head) -> dict[str, np.ndarray] | None:
    if set(head.counts) != set(COLUMNS):
        return None
    types = {name: np.dtype(code) for name, code in COLUMNS.items()}
    sizes = [_padded(head.counts[name] * kind.itemsize) for name, kind in types.items()]
    begins = list(accumulate(sizes, initial=start))
    if begins[-1] != len(mapped):
        return None
    with memoryview(mapped) as view, view[start:] as body:
        if hashlib.sha256(body).hexdigest() != head.sha256:
            return None
    return {
        name: np.frombuffer(mapped, kind, head.counts[name], begin)
        for (name, kind), begin in zip(types.items(), begins, strict=False)
    }


def _mapped(path: Path) -> mmap.mmap | None:
    """A file in memory; None where there is none, or others than its user could have written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        ours = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if not stat.S_ISREG(status.st_mode) or not ours:
            return None
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # it is empty
        return None
    finally:
        os.close(descriptor)


def _held(path: Path) -> HeldText | None:
    """A large file held open; None for any other, whose reading says what may be wrong with it."""
    try:
        held = HeldText(path)
    except (OSError, ValueError):
        return None
    return held if held.is_plain() and SMALL_BYTES <= held.size <= MAX_BYTES else None


@contextmanager
def _making() -> Iterator[None]:
    """Hold the folder's lock while an index is made; where there is no lock, go on without."""
    descriptor = None
    try:
        with contextlib.suppress(OSError):
            index_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(index_folder(), os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _rows(found: LeftOut) -> list[tuple[int, str, str]]:
    return [(count, reason, found.examples[reason]) for reason, count in found.counts.items()]


def _left_out(rows: list[tuple[int, str, str]]) -> LeftOut:
    return LeftOut(
        Counter({reason: count for count, reason, _ in rows}),
        {reason: example for _, reason, example in rows},
    )


def _padded(size: int) -> int:
    return size + -size % _ALIGNED
