"""Files that are written whole or not at all, and known by their sha256."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.errors import InputError, OutputError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.scratch import held, neighbour

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, 64 hex digits.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", "Check the path and its permissions"
        ) from error


def canonical_sha256(document: Any) -> str:
    """The sha256 of a JSON document whatever the order of its keys or its white space."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@places(0)
def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary neighbour of ``path``, then put it in its place.

    A reader sees the old file or the new one, never half of one.

    Args:
        path: Where the file shall be; its folder is made when missing.
        write: Given the temporary path, writes it.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    # Named before it is made: an interruption finds either nothing or what it has to remove.
    temporary = neighbour(path)
    with _output_errors(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch(exist_ok=False)
            with held(temporary):
                write(temporary)
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@places(0)
def require_writable(path: Path, room: int = 1 << 20) -> None:
    """Find out before long work whether a file or a folder could be written there.

    Args:
        path: Where it shall be; neither it nor its folder need be there.
        room: Bytes that must be free.

    Raises:
        OutputError: The nearest folder that is there takes no file, or its disk is full.
    """
    with _output_errors(path):
        if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        # Only trying tells: permissions, read-only mounts, quotas and odd file systems.
        trial = neighbour(folder / "mobileinst")
        try:
            trial.touch(exist_ok=False)
        finally:
            trial.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
        if free < room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document atomically.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: _write_text(temporary, text))


@contextmanager
def folder_atomically(folder: Path, mark: str, replaceable: frozenset[str]) -> Iterator[Path]:
    """Fill a temporary folder that becomes ``folder`` when the block ends well.

    An existing ``folder`` is replaced only when it is empty, or an older one of its kind: it holds
    ``mark`` and nothing that such a folder is not known to hold. After a failure or an interruption
    it is there as it was. Whoever looks finds the older folder or the new one: they change places
    in one step. A file system that cannot do that has a moment in between without any.

    Args:
        folder: The folder to make.
        mark: Name of the file that every folder of this kind holds.
        replaceable: Names that may be lost with an older folder.

    Yields:
        The temporary folder, on the same file system.

    Raises:
        OutputError: It cannot be written, or would destroy something else.
    """
    with _output_errors(folder):
        folder = folder.resolve()
        require_replaceable(folder, mark, replaceable)
        folder.parent.mkdir(parents=True, exist_ok=True)
    # Named before it is made: an interruption finds either nothing or what it has to remove.
    temporary = neighbour(folder)
    older = temporary.with_name(f"{temporary.name}.older")
    try:
        with _output_errors(folder, temporary, older):
            temporary.mkdir()
            with held(temporary):
                yield temporary
                require_replaceable(folder, mark, replaceable)  # it may have filled meanwhile
                _put_in_place(temporary, folder, older)
    finally:
        # Interrupted between two renames, the older folder goes back to its place.
        if older.exists() and not folder.exists():
            older.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def _put_in_place(fresh: Path, folder: Path, older: Path) -> None:
    """Let ``fresh`` become ``folder``; what was there lies at one of the other two paths then."""
    try:
        fresh.rename(folder)  # there is none, or an empty one
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if not exchange(fresh, folder):
        folder.rename(older)
        fresh.rename(folder)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step, so that neither is ever missing.

    Returns:
        False where the system or its file system cannot: outside Linux, and on network and FUSE
        file systems.

    Raises:
        OSError: It can, and does not.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(other))


@places(0)
def require_replaceable(folder: Path, mark: str, replaceable: frozenset[str]) -> None:
    """Find out before long work whether :func:`folder_atomically` would take that folder.

    Raises:
        OutputError: It is a file, or holds something else than an older one of its kind.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder", "Give another output folder")
    names = {path.name for path in folder.iterdir()}
    foreign = sorted(names - replaceable if mark in names else names)
    if foreign:
        raise OutputError(
            f"{folder} is not an older export: it holds {foreign[0]}", "Give a new or empty folder"
        )


#: What the system says of a full disk, in any write.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def _output_errors(path: Path, *ours: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write ``path`` into sentences.

    With ``ours``, the files that are written on the way, what goes wrong with any other file passes
    as it is: it says nothing about ``path``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OutputError(
                f"there is no space left to write {path}",
                "Free some space or write elsewhere",
                str(path),
            ) from error
        if ours and not _speaks_of(error, (path, *ours)):
            raise
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            "Give a folder that you may write to",
            str(path),
        ) from error


def _speaks_of(error: OSError, paths: Iterable[Path]) -> bool:
    if error.filename is None:  # a write that fails names no file, and neither does a connection
        return not isinstance(error, ConnectionError | TimeoutError | ChildProcessError)
    if not isinstance(error.filename, str | os.PathLike):
        return False
    named = Path(error.filename)
    # Making the folder of an output may fail at any folder above it.
    return any(named == path or path in named.parents or named in path.parents for path in paths)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
