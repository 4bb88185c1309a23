"""How much a pickle would make, found out from its instructions before any of them is followed.

A few hundred bytes can stand for a tuple that holds itself twice, thirty times over: whoever hashes
or shows it never comes to an end. So the instructions are walked through first, with the size and
the depth of every value in place of the value.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

#: Instructions of all pickles in a file; a checkpoint has about 20 for a tensor.
MAX_INSTRUCTIONS = 2_000_000
#: Values in one tuple, or characters in one text that is put together; tuples in tuples.
MAX_SIZE = 100_000
MAX_DEPTH = 64
# Whole numbers of more than 64 bits can be chosen so that a dict of them takes hours.
_INTEGERS = frozenset({"INT", "LONG", "LONG1", "LONG4"})
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ"})
_KEPT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_FETCHED = frozenset({"GET", "BINGET", "LONG_BINGET"})
_LEGACY_MARK = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5  # torch before 1.6: a mark, a version, the machine, the object, its storages


class _Value(NamedTuple):
    size: int
    depth: int


_ONE = _Value(1, 0)
_MARK = _Value(0, -1)


def require_bounded(path: Path) -> None:
    """Walk through the pickles of a file that torch saved.

    Raises:
        ValueError: One of them would make something out of all bounds, or is damaged.
        OSError: The file cannot be read.
    """
    left = MAX_INSTRUCTIONS
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                left = _walk(file, left)
                if not file.peek(1):
                    return
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed, which torch does not do")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its parts lie on top of each other")
        for member in members:
            if member.filename.endswith(".pkl"):
                left = _walk(io.BytesIO(archive.read(member)), left)


def _walk(file: IO[bytes], left: int) -> int:
    """Walk through one pickle, up to its end; how many instructions are left for others."""
    stack: list[_Value] = []
    memo: dict[int, _Value] = {}
    for instruction, given, _ in pickletools.genops(file):
        argument: Any = given
        left -= 1
        if left < 0:
            raise ValueError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
        name = instruction.name
        if name in _INTEGERS and argument != _LEGACY_MARK and int(argument).bit_length() > 64:
            raise ValueError("it holds a whole number of more than 64 bits")
        if name in _KEPT or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in _FETCHED:
            stack.append(memo[int(argument)])
        else:
            taken = _taken(stack, instruction)
            made = instruction.stack_after
            if name in _TUPLES:
                stack.append(_bounded(taken))
            elif made and made[0] is pickletools.markobject:
                stack.append(_MARK)
            elif made:
                long = len(argument) if isinstance(argument, str | bytes) else 1
                stack += [_Value(max(long, 1), 0)] * len(made)
    return left


def _taken(stack: list[_Value], instruction: pickletools.OpcodeInfo) -> list[_Value]:
    """What an instruction takes from the stack."""
    before = instruction.stack_before
    taken: list[_Value] = []
    for wanted in reversed(before):
        if wanted is pickletools.stackslice:
            while stack[-1] is not _MARK:
                taken.append(stack.pop())
        else:
            taken.append(stack.pop())
    return taken


def _bounded(parts: Iterable[_Value]) -> _Value:
    parts = list(parts)
    value = _Value(1 + sum(p.size for p in parts), 1 + max((p.depth for p in parts), default=0))
    if value.size > MAX_SIZE or value.depth > MAX_DEPTH:
        raise ValueError("it holds a value that is made of itself, over and over")
    return value
