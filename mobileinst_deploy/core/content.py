"""Files as they were read: what is checked, hashed and run is one and the same content.

A file may be replaced between two looks at it. So whatever must be what was checked is read once,
and handed on as bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mobileinst_deploy.core.errors import InputError
from mobileinst_deploy.core.places import places

#: Of one file; protobuf, and so ONNX, takes no more.
MAX_BYTES = (2 << 30) - 1


@dataclass(frozen=True)
class Content:
    """One file's content.

    Attributes:
        path: Where it was read; by now, something else may lie there.
        data: Its bytes.
    """

    path: Path
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def bytes(self) -> int:
        """Its size."""
        return len(self.data)

    @cached_property
    def sha256(self) -> str:
        """Of its bytes, 64 hex digits."""
        return hashlib.sha256(self.data).hexdigest()

    def write(self, folder: Path, name: str | None = None) -> Path:
        """Put it into a folder, under its own or another name, and give the new path."""
        path = folder / (name or self.name)
        path.write_bytes(self.data)
        return path


@places(0)
def read_content(path: Path) -> Content:
    """Read a whole file.

    Raises:
        InputError: It cannot be read, is no plain file, or has more than :data:`MAX_BYTES`.
    """
    try:
        # Without blocking: opening a pipe would wait for its other end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path} is no plain file", "Give a file")
            if status.st_size > MAX_BYTES:
                raise InputError(
                    f"{path} has {status.st_size:,} bytes, and {MAX_BYTES:,} are the most",
                    "Give a smaller file",
                )
            return Content(path, file.read())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", "Check the path and its permissions"
        ) from error


class OpenFolder:
    """A folder whose files are held open: all that is read is of this one, whatever replaces it.

    Args:
        path: The folder.
        descriptor: Of the folder, opened for reading.
        names: Files to hold open from the beginning on, so that they can be read to their ends even
            when the folder is removed meanwhile.
    """

    def __init__(self, path: Path, descriptor: int, names: Iterable[str]) -> None:
        self.path = path
        self._descriptor = descriptor
        self._files: dict[str, int | None] = {}
        try:
            for name in names:
                self._files[name] = self._open(name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self._files.values():
            if descriptor is not None:
                os.close(descriptor)
        self._files.clear()

    def _open(self, name: str) -> int | None:
        # Without blocking: opening a pipe would wait for its other end.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(name, flags, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                return None
            raise OSError(error.errno, error.strerror, str(self.path / name)) from None

    def read(self, name: str, most: int) -> Content | None:
        """Read a file that is held open, to its end or one byte beyond ``most``.

        Returns:
            None where it is missing, a link, or no plain file.

        Raises:
            OSError: The system cannot read it.
        """
        descriptor = self._files.get(name)
        if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(0)
            return Content(self.path / name, file.read(most + 1))

    def replaced(self) -> bool:
        """Whether another folder, or none, lies at the path by now."""
        try:
            now = self.path.stat()
        except OSError:
            return True
        held = os.fstat(self._descriptor)
        return (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino)


@contextmanager
def open_folder(path: Path, names: Iterable[str]) -> Iterator[OpenFolder]:
    """Hold some of a folder's files open while they are read.

    Raises:
        OSError: There is no such folder, or it or one of the files cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder = OpenFolder(path, descriptor, names)
        try:
            yield folder
        finally:
            folder.close()
    finally:
        os.close(descriptor)
