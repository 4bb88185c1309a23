"""What a reader under test is.

The contract is one for all: bytes give a value, or the project's own error in one printable line of
bounded length. Any other exception is a fault; so is taking more than :data:`SECONDS`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.core.zoo import zoo_folder

SECONDS = 5.0
MOST_CHARACTERS = 4000


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        read: Takes the bytes; raises what the reader raises.
        seeds: Real inputs to begin from.
        text: Whether inputs are text, which other mutations suit.
        share: How many of a round's cases it gets, to others' 1: slow readers get fewer.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    text: bool = True
    share: float = 1.0


def survives(target: Target, data: bytes) -> bool:
    """Give a target one input; False where it was refused, as most are.

    Raises:
        Exception: Whatever is no refusal: a fault.
    """
    try:
        target.read(data)
    except MobileInstError as error:
        refused = error
    else:
        return True
    said = str(refused)
    assert said.isprintable(), f"{type(refused).__name__} of several lines: {said!r}"
    assert len(said) <= MOST_CHARACTERS, f"{type(refused).__name__} of {len(said)} characters"
    return False


@cache
def scratch() -> Path:
    """A folder in memory, with two pictures for annotations to speak of."""
    memory = Path("/dev/shm")  # noqa: S108 - a file a case, a million cases
    kept = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    _KEPT.append(kept)
    folder = Path(kept.name)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.zeros((24, 32, 3), np.uint8))
    return folder


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def file_of(name: str, data: bytes) -> Path:
    """A file of that content."""
    path = scratch() / name
    path.write_bytes(data)
    return path


def texts(*documents: object) -> list[bytes]:
    """Documents as JSON."""
    return [json.dumps(document).encode() for document in documents]


def zoo_files(name: str) -> list[bytes]:
    """The files of that name of all models of the zoo."""
    return [path.read_bytes() for path in sorted(zoo_folder().glob(f"*/{name}"))]
