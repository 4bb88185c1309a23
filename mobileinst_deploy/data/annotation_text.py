"""The text of an annotation file: a small one in memory, a large one held open and read in pieces.

Nearly all of a large file is its list of annotations. It is cut where one annotation ends and the
next begins, into pieces that are JSON lists of their own once they stand in brackets. No scanner of
JSON is needed to know that a cut is right: if every piece is such a list, and so is the file with
the pieces taken out, then the whole is, and says the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from mobileinst_deploy.core.errors import DatasetError

#: Smaller files take less time than looking for an index, and stay in memory.
SMALL_BYTES = 8 << 20
BLOCK_BYTES = 4 << 20
_LIST = re.compile(rb'"annotations"[ \t\r\n]*:[ \t\r\n]*\[')
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
#: How many places that look like the end of an annotation may turn out to be inside of one.
_TRIES = 64


@dataclass(frozen=True)
class WholeText:
    """A text in memory."""

    data: bytes

    def read(self, start: int, length: int) -> bytes:
        """Some bytes of it."""
        return self.data[start : start + length]

    def require_unchanged(self) -> None:
        """Nothing: nobody else can change it."""


class HeldText:
    """A text in a file that is held open, so that another one may take its place.

    Args:
        path: The file.
        stamp: Of the file as it was when its content was checked; by default, as it is now.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, stamp: tuple[int, ...] | None = None) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = stamp or self._stamped()

    def __reduce__(self) -> tuple[type[HeldText], tuple[Path, tuple[int, ...]]]:
        # For a process that is not forked: it opens the same file again, or finds that it changed.
        return HeldText, (self.path, self._stamp)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._stamp[0]

    def is_plain(self) -> bool:
        """Whether it is a file that can be read from any place, no pipe."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def read(self, start: int, length: int) -> bytes:
        """Some bytes of it; fewer where it ends."""
        return os.pread(self._descriptor, length, start)

    def sha256(self) -> str:
        """Of all of it, 64 hex digits."""
        found = hashlib.sha256()
        for start in range(0, self.size, BLOCK_BYTES):
            found.update(self.read(start, BLOCK_BYTES))
        return found.hexdigest()

    def require_unchanged(self) -> None:
        """Insist that the file has still the content that was checked.

        Raises:
            DatasetError: Something has written into it.
        """
        if self._stamped() != self._stamp:
            raise DatasetError(
                f"{self.path} was changed while it was in use", "Start again", str(self.path)
            )

    def _stamped(self) -> tuple[int, ...]:
        now = os.fstat(self._descriptor)
        return now.st_size, now.st_mtime_ns, now.st_ino


Text = WholeText | HeldText


class Cut(NamedTuple):
    """A large text in pieces.

    Attributes:
        rest: The document with an empty list of annotations.
        pieces: (start, end) of texts that are annotations with commas between them.
    """

    rest: bytes
    pieces: list[tuple[int, int]]


def cut(text: HeldText) -> Cut | None:
    """Cut a document at annotations' ends.

    Returns:
        None where that cannot be done: it is not JSON, or not written as such files are.
    """
    begin = _list_begins(text)
    if begin is None:
        return None
    pieces: list[tuple[int, int]] = []
    start = begin
    while True:
        block = text.read(start, BLOCK_BYTES)
        found = _entries_of(block, last=start + len(block) >= text.size)
        if found is None or (pieces and not block[: found.end].strip()):
            return None
        pieces.append((start, start + found.end))
        if found.closed:
            break
        start += found.end + 1  # the comma
    close = pieces[-1][1]
    before, after = text.read(0, begin), text.read(close, text.size - close)
    # The list that was cut is the one that counts: not one further inside, or followed by another.
    token = f'"{secrets.token_hex(16)}"'.encode()
    try:
        outline = msgspec.json.decode(before[:-1] + token + after[1:], type=_Outline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Cut(before + after, pieces) if bytes(outline.annotations) == token else None


class _Outline(msgspec.Struct):
    annotations: msgspec.Raw = msgspec.Raw(b"null")


class _Entries(NamedTuple):
    """How far a block holds whole annotations, and whether their list is closed there."""

    end: int
    closed: bool


def _list_begins(text: HeldText) -> int | None:
    """Where the first annotation begins."""
    # Blocks overlap, so that what is looked for is whole in one of them.
    for start in range(0, text.size, BLOCK_BYTES):
        match = _LIST.search(text.read(start, BLOCK_BYTES + 64))
        if match is not None:
            return start + match.end()
    return None


def _entries_of(block: bytes, *, last: bool) -> _Entries | None:
    end = len(block) if last else block.rfind(b"},") + 1
    for _ in range(_TRIES):
        if end <= 0:
            return None
        try:
            msgspec.json.decode(b"[%b]" % block[:end], type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if closed := _TRAILING.search(str(error)):
                return _Entries(block.rindex(b"]", 0, int(closed[1]) - 1), closed=True)
        else:
            # All of the text without the end of the list would be a document cut short.
            return None if last else _Entries(end, closed=False)
        end = block.rfind(b"},", 0, end - 1) + 1
    return None
