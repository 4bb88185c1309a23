"""Temporary files and folders that no end of a process leaves for good.

Whoever makes one holds a lock on it, which the system gives back even after SIGKILL. The next one
that is made for the same purpose removes what nobody holds any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "mobileinst"
#: Its maker's process and a number of its own.
_TOKEN = r"[0-9a-f]{1,8}-[0-9a-f]{8}"  # noqa: S105 - no password
#: Younger ones may belong to another machine or container, which is about to lock them.
_YOUNG_S = 60.0


@contextmanager
def scratch_folder(within: Path | None = None) -> Iterator[Path]:
    """A folder for the time of a block.

    Args:
        within: The folder that it lies in; by default the system's for temporary files.
    """
    parent = Path(tempfile.gettempdir()) if within is None else within
    sweep(parent, _PREFIX)
    # Named before it is made: an interruption finds either nothing or what it has to remove.
    folder = parent / f"{_PREFIX}-{_token()}"
    try:
        folder.mkdir(mode=0o700)
        with held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def neighbour(path: Path, suffix: str = "") -> Path:
    """A temporary name beside an output, which is not made yet; what died there before goes.

    Hold it with :func:`held` as soon as it is there.
    """
    hidden = f".{path.name[:200]}"
    sweep(path.parent, hidden)
    return path.with_name(f"{hidden}-{_token()}{suffix}")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a temporary file or folder, which says that its maker is alive."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A file system without locks has none that could be cleaned up later, and works else.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sweep(folder: Path, prefix: str) -> None:
    """Remove what dead processes left in a folder under :func:`neighbour` 's or its like's names.

    An output that was about to be replaced by a new one goes back to its place instead.
    """
    wanted = re.compile(rf"{re.escape(prefix)}-(?P<pid>{_TOKEN})(\.older|\.mp4)?")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = wanted.fullmatch(entry.name)
            if match is not None and _is_dead(entry, int(match["pid"].split("-")[0], 16)):
                _remove(Path(entry.path), folder / prefix.removeprefix("."))


def _remove(path: Path, output: Path) -> None:
    if path.suffix == ".older" and not output.exists():
        path.rename(output)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_dead(entry: os.DirEntry[str], pid: int) -> bool:
    """Whether nobody holds it, and its maker is gone or it is old enough to have been held."""
    try:
        if entry.is_symlink() or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
            return False
        if _runs(pid) and time.time() - entry.stat().st_mtime < _YOUNG_S:
            return False
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _token() -> str:
    return f"{os.getpid():x}-{secrets.token_hex(4)}"
