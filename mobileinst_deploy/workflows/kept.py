"""What was kept of a pair: counted instructions and average precision, read with suspicion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.documents import Blame, Whole, read_json
from mobileinst_deploy.core.errors import InputError
from mobileinst_deploy.core.pair_files import RESULTS

_HALF = "ncnn-fp16"
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Counts(msgspec.Struct):
    """What of ``instructions.json`` is read: executed ARM instructions by graph."""

    runtime: str
    live_kernels: Whole
    instructions: dict[str, Whole]
    bundle_sha256: str = ""
    # Counts of version 0.2 have none.
    kinds: dict[str, dict[str, Whole]] = {}


class Block(msgspec.Struct):
    """Average precision on one set of annotations; None where none could be computed."""

    ap: _Share | None = msgspec.field(name="AP", default=None)
    annotations: str = ""
    annotations_sha256: str = ""


class Evaluation(msgspec.Struct):
    """What of ``eval.json`` is read: AP on pictures, and on clips by schedule."""

    runtime: str
    pictures: Block | None = None
    clips: dict[str, Block] = {}
    model_sha256: str = ""


@dataclass(frozen=True)
class Precision:
    """Average precision of a pair, and on what: two of other data say nothing of each other.

    Attributes:
        ap: In [0, 1].
        on: The annotation file's name, and on clips the schedule.
        sha256: Of that file.
    """

    ap: float
    on: str
    sha256: str


def names_of_sets(found: Iterable[Precision]) -> dict[tuple[str, str], str]:
    """A name for every set by what it is: files of one name are told apart by their digests."""
    sets = {(each.on, each.sha256) for each in found}
    alike = Counter(on for on, _ in sets)
    return {
        (on, sha256): on if alike[on] == 1 else f"{on} ({sha256[:8] or 'of no digest'})"
        for on, sha256 in sets
    }


def blame(path: Path) -> Blame:
    """Whose fault a kept result is that cannot be read."""
    return Blame(str(path), InputError, "Measure again")


def read_counts(path: Path) -> Counts:
    """Read an ``instructions.json``.

    Raises:
        InputError: It is none, or damaged.
    """
    return read_json(path, Counts, blame(path))


def read_evaluation(path: Path) -> Evaluation:
    """Read an ``eval.json``.

    Raises:
        InputError: It is none, or damaged.
    """
    return read_json(path, Evaluation, blame(path))


def counts_of(pair: ExportBundle, runtime: str) -> dict[str, int] | None:
    """Instructions of each graph of this very pair by a runtime; None where none were counted."""
    for path in sorted((pair.folder / RESULTS).glob("*/instructions.json")):
        try:
            found = read_counts(path)
        except InputError:
            continue
        same = found.bundle_sha256 == pair.sha256 and found.runtime.split(" ")[0] == runtime
        if same and found.live_kernels == pair.config.num_queries:
            return found.instructions
    return None


def precision_of(pair: ExportBundle, runtime: str) -> Precision | None:
    """AP of this very pair, pictures before clips; None where nothing was evaluated.

    An evaluation by the same runtime goes before one by another. What was computed in half
    precision says nothing of float32, nor the other way round.
    """
    known: list[tuple[bool, Precision]] = []
    for path in sorted((pair.folder / RESULTS).glob("*/eval.json")):
        try:
            found = read_evaluation(path)
        except InputError:
            continue
        by = found.runtime.split(" ")[0]
        if found.model_sha256 != pair.sha256 or (by == _HALF) != (runtime == _HALF):
            continue
        blocks = {"": found.pictures, **{f" at T = {t}": b for t, b in found.clips.items()}}
        for how, block in blocks.items():
            if block is not None and block.ap is not None:
                on = f"{block.annotations}{how}"
                known.append((by != runtime, Precision(block.ap, on, block.annotations_sha256)))
                break
    return min(known, key=lambda each: each[0])[1] if known else None
