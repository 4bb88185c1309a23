"""Results kept one by one as they come, so that long work goes on where it was interrupted."""

from __future__ import annotations

import fcntl
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.core.files import canonical_sha256

#: Of one entry; nothing that is kept comes near it.
MOST_BYTES = 1 << 28


class Journal:
    """A file of entries, one line each, that survives being cut off anywhere.

    Every line carries a checksum of what it says; what follows the last good line is dropped. While
    one process is at the work, another at the same work finds nothing here and keeps nothing: their
    lines would mix. Use it as a context manager.

    Args:
        folder: Where journals are kept; made when missing.
        key: What the entries depend on. Other work has another journal.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.path = folder / f"{canonical_sha256(dict(key))[:32]}.jsonl"
        self._file: IO[bytes] | None = None
        #: Whether another process keeps this work.
        self._elsewhere = False

    def __enter__(self) -> Journal:
        with _refusals(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            self._elsewhere, self._file = True, None
        except OSError:  # a file system without locks
            pass
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def entries(self, kind: Any = Any) -> Iterator[Any]:
        """What earlier work left, in order; read it to its end before adding to it.

        Args:
            kind: What an entry is, as msgspec knows types; what is none ends the journal there.
        """
        if self._elsewhere:
            return
        decoder = msgspec.json.Decoder(kind)
        file = self._opened()
        file.seek(0)
        good = 0
        for line in iter(lambda: file.readline(MOST_BYTES), b""):
            text = line[9:-1]
            if line[-1:] != b"\n" or line[:9] != b"%08x " % zlib.crc32(text):
                break
            try:
                entry = decoder.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                break
            good += len(line)
            yield entry
        with _refusals(self.path):
            file.truncate(good)

    def add(self, entry: Any) -> None:
        """Keep one more entry, anything that JSON can hold.

        Raises:
            OutputError: The disk is full.
        """
        if self._elsewhere:
            return
        text = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode("ascii")
        file = self._opened()
        with _refusals(self.path):
            file.write(b"%08x %s\n" % (zlib.crc32(text), text))
            file.flush()

    def remove(self) -> None:
        """Forget everything: the work is done."""
        if not self._elsewhere:
            self.path.unlink(missing_ok=True)
        self.__exit__()

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("a journal is used inside its with block")
        return self._file


class Journals:
    """The journals of one piece of work, which go together once all of it is kept elsewhere.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: list[Journal] = []

    def journal(self, key: Mapping[str, Any]) -> Journal:
        """The journal of one part of the work; see :class:`Journal`."""
        self._opened.append(Journal(self._folder, key))
        return self._opened[-1]

    def remove(self) -> None:
        """Forget every part: the whole work is done, and its result kept."""
        for journal in self._opened:
            journal.remove()


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            "Free some space there or make the folder writable; what is in it is not lost",
            str(path),
        ) from error
