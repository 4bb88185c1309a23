"""Instruction counts that are recorded, so that a change which costs more is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from mobileinst_deploy.core.documents import MAX_WHOLE, Blame, read_json
from mobileinst_deploy.core.errors import BundleError, VerificationFailed
from mobileinst_deploy.core.files import write_json

SCHEMA = 1
#: Counts are exact; this leaves room for a change whose cost nobody would notice. Whole per cent,
#: so that the comparison is of whole numbers.
LIMIT_PERCENT = 1

Counts = Mapping[str, int]


@dataclass(frozen=True)
class _Document:
    schema: Literal[1]
    runtime: str
    instructions: dict[str, Annotated[int, Meta(ge=1, le=MAX_WHOLE)]]


@dataclass(frozen=True)
class Recorded:
    """Accepted counts.

    Attributes:
        runtime: Name and version of the runtime that executed them.
        counts: Executed ARM instructions by graph, such as ``optimized/frame``.
    """

    runtime: str
    counts: Counts


def read_recorded(path: Path) -> Recorded:
    """Read accepted counts.

    Raises:
        BundleError: The file is missing, or not of that kind.
    """
    where = f"{path} holds no recorded instruction counts"
    document = read_json(path, _Document, Blame(where, BundleError, "Record them with --accept"))
    return Recorded(document.runtime, document.instructions)


def write_recorded(path: Path, recorded: Recorded) -> None:
    """Accept counts.

    Raises:
        OutputError: The file cannot be written.
    """
    instructions = dict(sorted(recorded.counts.items()))
    write_json(path, {"schema": SCHEMA, "runtime": recorded.runtime, "instructions": instructions})


def insist(recorded: Recorded, counted: Recorded, accept: str) -> list[str]:
    """Compare counts with the accepted ones.

    Args:
        recorded: What was accepted.
        counted: What was counted now.
        accept: The command that accepts new counts, for the message.

    Returns:
        One line for each graph, for people.

    Raises:
        VerificationFailed: A count rose by more than :data:`LIMIT_PERCENT`, a graph is new or
            gone, or the runtime is another one.
    """
    if counted.runtime != recorded.runtime:
        raise VerificationFailed(
            f"counts were recorded with {recorded.runtime}, and this is {counted.runtime}",
            f"Look at the new counts and accept them with `{accept}`",
        )
    if counted.counts.keys() != recorded.counts.keys():
        differ = sorted(counted.counts.keys() ^ recorded.counts.keys())
        raise VerificationFailed(
            f"recorded and counted graphs differ in {', '.join(differ)}",
            f"Accept the new list with `{accept}`",
        )
    lines, raised = [], []
    for name, before in recorded.counts.items():
        now = counted.counts[name]
        line = f"{name}: {before:,} to {now:,} instructions ({now / before - 1:+.2%})"
        lines.append(line)
        if now * 100 > before * (100 + LIMIT_PERCENT):
            raised.append(line)
    if raised:
        raise VerificationFailed(
            f"executed ARM instructions rose by more than {LIMIT_PERCENT} %: {'; '.join(raised)}",
            f"Win them back, or accept them with `{accept}` and say why in the commit",
        )
    return lines
