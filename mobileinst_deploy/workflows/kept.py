"""What was kept of a pair: counted instructions and average precision, read with suspicion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.documents import Blame, Whole, read_json
from mobileinst_deploy.core.errors import InputError
from mobileinst_deploy.core.pair_files import RESULTS

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


class Evaluation(msgspec.Struct):
    """What of ``eval.json`` is read: AP on pictures, and on clips by schedule."""

    runtime: str
    pictures: Block | None = None
    clips: dict[str, Block] = {}
    model_sha256: str = ""


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


def precision_of(pair: ExportBundle, runtime: str) -> tuple[float, str] | None:
    """AP of this very pair and on what, pictures before clips; None where nothing was evaluated.

    An evaluation by the same runtime goes before one by another.
    """
    known: list[tuple[bool, float, str]] = []
    for path in sorted((pair.folder / RESULTS).glob("*/eval.json")):
        try:
            found = read_evaluation(path)
        except InputError:
            continue
        if found.model_sha256 != pair.sha256:
            continue
        blocks = {"": found.pictures, **{f" at T = {t}": b for t, b in found.clips.items()}}
        for how, block in blocks.items():
            if block is not None and block.ap is not None:
                other = found.runtime.split(" ")[0] != runtime
                known.append((other, block.ap, f"{block.annotations}{how}"))
                break
    if not known:
        return None
    _, ap, on = min(known, key=lambda each: each[0])
    return ap, on
