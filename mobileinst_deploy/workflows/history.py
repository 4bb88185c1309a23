"""The notebook: every latency record that was measured here, kept for good.

One file for each measurement, in the user's own state folder. Keeping never fails a measurement,
and an entry that was damaged later hides no other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from platformdirs import user_state_path

from mobileinst_deploy.core.errors import ConfigError, InputError, OutputError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.measure.record import LatencyRecord, read_record, read_records

#: A notebook of more pages than these is read from its end.
MOST_ENTRIES = 2000


@dataclass(frozen=True)
class Entry:
    """One measurement.

    Attributes:
        name: Its file's name without the ending: what ``history`` lists and ``report`` takes.
        record: What was measured.
    """

    name: str
    record: LatencyRecord


@dataclass(frozen=True)
class History:
    """What is in the notebook.

    Attributes:
        entries: The oldest first.
        damaged: Files that cannot be read, with the reason.
        left_out: How many older ones there are beyond :data:`MOST_ENTRIES`.
    """

    entries: tuple[Entry, ...]
    damaged: tuple[str, ...]
    left_out: int


def history_folder() -> Path:
    """Where the notebook lies."""
    return user_state_path("mobileinst") / "history"


class Page:
    """One entry of the notebook, for a measurement that is kept while it still grows."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def keep(self, record: LatencyRecord) -> str | None:
        """Let a record take the place of the last one here; None, or why it could not be kept."""
        path = self._path or _free_path(record)
        if path is None:
            return f"{history_folder()} has a thousand entries like this one"
        try:
            write_atomically(path, partial(_put, msgspec.json.encode(record.to_dict())))
        except OutputError as error:
            return error.cause
        self._path = path
        return None


def remember(record: LatencyRecord) -> str | None:
    """Keep a record; None, or why it could not be kept."""
    return Page().keep(record)


def _free_path(record: LatencyRecord) -> Path | None:
    """Where a new entry goes; None where a thousand like it are."""
    when = re.sub(r"[^0-9T]", "", record.measured_at.split("+")[0])
    parts = (when, record.device.serial, record.runtime.split(" ")[0], record.pair.model_id)
    stem = "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part)[:60] for part in parts)
    names = (f"{stem}{f'-{number}' if number else ''}.json" for number in range(1000))
    return next((p for name in names if not _is_taken(p := history_folder() / name)), None)


def _is_taken(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that may not be looked into is told when it is written
        return False


@dataclass(frozen=True)
class Merged:
    """What came of another machine's records.

    Attributes:
        added: How many were new.
        known: How many were here already.
        refused: Files that hold none, with the reason.
    """

    added: int
    known: int
    refused: tuple[str, ...]


def merge(sources: Sequence[Path]) -> Merged:
    """Take over what other machines measured.

    Args:
        sources: Records, what ``bench --json`` printed of several devices, or folders of either,
            such as another machine's notebook.

    Raises:
        InputError: A source does not exist.
        OutputError: The notebook cannot be written.
    """
    files: list[Path] = []
    for source in sources:
        if not source.exists():
            raise InputError(f"{shown(str(source), 200)} does not exist", "Give a file or folder")
        files += sorted(source.rglob("*.json")) if source.is_dir() else [source]
    here = {_content(entry.record) for entry in read_history(most=None).entries}
    added, known, refused = 0, 0, list[str]()
    for path in files:
        try:
            records = read_records(path)
        except InputError as error:
            refused.append(error.cause)
            continue
        for record in records:
            if (content := _content(record)) in here:
                known += 1
                continue
            if (why := remember(record)) is not None:
                raise OutputError(why, "Free some space there, then merge again")
            here.add(content)
            added += 1
    return Merged(added, known, tuple(refused))


def _content(record: LatencyRecord) -> bytes:
    return hashlib.sha256(msgspec.json.encode(record.to_dict())).digest()


def read_history(
    *, device: str | None = None, model: str | None = None, most: int | None = MOST_ENTRIES
) -> History:
    """The notebook's entries, of one device or model if named.

    Args:
        device: Serial of a phone, or ``cpu``.
        model: Model id.
        most: Only so many of the newest files are read; None: all.
    """
    paths = sorted(history_folder().glob("*.json"))
    entries, damaged = [], []
    read = paths if most is None else paths[-most:]
    for path in read:
        try:
            record = read_record(path)
        except InputError as error:
            damaged.append(error.cause)
            continue
        if device in (None, record.device.serial) and model in (None, record.pair.model_id):
            entries.append(Entry(path.stem, record))
    return History(tuple(entries), tuple(damaged), len(paths) - len(read))


def find_entry(name: str) -> Entry:
    """One entry by its name, or by the beginning of it that no other shares.

    Raises:
        ConfigError: There is none, or several begin like that.
        InputError: It was damaged.
    """
    found = sorted(p for p in history_folder().glob("*.json") if p.stem.startswith(name))
    exact = [path for path in found if path.stem == name]
    if len(exact or found) != 1:
        many = f"{len(found)} entries of the history begin with" if found else "no entry is named"
        raise ConfigError(f"{many} {name[:80]!r}", "See `mobileinst history` for their names")
    (path,) = exact or found
    return Entry(path.stem, read_record(path))


def _put(data: bytes, path: Path) -> None:
    path.write_bytes(data)
