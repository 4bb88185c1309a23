"""The table of faults and what became of each: docs/faults.md, written by the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent.parent.parent / "docs" / "faults.md"
_HEAD = """\
# Faults, and what becomes of them

Written by the fault tests from what they saw:
`MOBILEINST_WRITE_FAULTS=1 pytest tests/device -k fault`. Each row is a test. Phones are emulated
ones with the real adbd, driven by the real adb; after every test nothing of ours may run on the
phone. Serials, numbers of processes, noise, sizes and paths differ from run to run. Long sentences
are cut here.

| fault | exit | what the user is told |
|---|---|---|
"""
#: Of a sentence in the table; people see it whole.
_MOST = 160
_noted: dict[str, tuple[int, str]] = {}


def title(item: pytest.Item) -> str:
    """A fault's name: the test's first line, and its case where it has several."""
    words = (item.function.__doc__ or item.name).strip().splitlines()[0].rstrip(".")  # type: ignore[attr-defined]
    case = re.search(r"\[(.*)\]$", item.name)
    return f"{words}: {case.group(1)}" if case else words


def note(item: pytest.Item, outcome: str, exit_code: int) -> None:
    """Remember what a fault led to."""
    text = re.sub(r"127\.0\.0\.1:\d+", "SERIAL", outcome)
    text = re.sub(r"\b(process|pid) \d+", r"\1 NUMBER", text)
    text = re.sub(r": [^:]*\ufffd.*?\. (?=[A-Z][a-z]+ )", ": (noise). ", text, flags=re.DOTALL)
    text = re.sub(r"/\S*/(?=[\w.-]+)", ".../", text)
    _noted[title(item)] = (exit_code, text)


def titles_in_table() -> set[str]:
    """The faults that docs/faults.md lists."""
    rows = (line.split(" | ") for line in FAULTS.read_text().splitlines() if line.startswith("| "))
    return {row[0].removeprefix("| ") for row in rows} - {"fault"}


def write() -> None:
    """Write docs/faults.md."""
    if not _noted:
        return
    rows = "".join(
        f"| {name} | {code} | {_short(text)} |\n" for name, (code, text) in _noted.items()
    )
    FAULTS.write_text(_HEAD + rows)


def _short(text: str) -> str:
    """A sentence for a cell: whole words, and an ellipsis where some are left out."""
    text = text.replace("|", "/")
    return text if len(text) <= _MOST else f"{text[:_MOST].rpartition(' ')[0]} ..."
