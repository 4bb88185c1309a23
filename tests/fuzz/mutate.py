"""Inputs a little or wholly wrong, made of right ones; the same seed gives the same inputs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

#: What readers have stumbled over, here and elsewhere.
TOKENS = (
    b"", b"0", b"-1", b"1e999", b"-1e-999", b"NaN", b"Infinity", b"null", b"true", b'""', b"[]",
    b"{}", b"1" + b"0" * 400, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\xff", b"\x00",
    b"\xef\xbb\xbf",
    b'"\\ud800"', b'"\\u0000"', b'"\\u001b[31m"', b"../../etc/passwd", b"\r\n", b"[[]]\n",
    b"2147483648", b"18446744073709551616", b"\x80\x02", b"PK\x03\x04", b"%s%n",
    b"\xf0\x9f\x98\x80",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, -(10**30), 0.5, 1e300,
    -0.0, "", "0", "1", "-1", "a" * 5000, "\x1b[31m", "\u202e", "\0", "../a", "/etc/passwd", "1.0",
    [], [[]], [None], [0] * 300, {}, {"": None}, {"id": 1}, [[[[[[[[]]]]]]]], [1.5, "x", None],
)  # fmt: skip


def mutated(seed: int, seeds: list[bytes], *, text: bool) -> bytes:
    """One input: a seed with one to four mutations."""
    draw = random.Random(seed)
    data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        ways = _TEXT if text else _BYTES
        data = draw.choice(ways)(data, draw, seeds)
    return data[: 1 << 20]


def _flip(data: bytes, draw: random.Random, _: list[bytes]) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(out))
        out[place] = (
            draw.randrange(256) if draw.random() < 0.5 else out[place] ^ 1 << draw.randrange(8)
        )
    return bytes(out)


def _cut(data: bytes, draw: random.Random, _: list[bytes]) -> bytes:
    begin = draw.randrange(len(data) + 1)
    if draw.random() < 0.4:
        return data[:begin]
    return data[:begin] + data[begin + draw.choice((1, 2, 4, 16, 200)) :]


def _repeat(data: bytes, draw: random.Random, _: list[bytes]) -> bytes:
    begin = draw.randrange(len(data) + 1)
    piece = data[begin : begin + draw.choice((1, 4, 40, 400))]
    return data[:begin] + piece * draw.choice((2, 3, 50)) + data[begin:]


def _insert(data: bytes, draw: random.Random, _: list[bytes]) -> bytes:
    begin = draw.randrange(len(data) + 1)
    end = begin + draw.choice((0, 0, 1, 4, 8))
    return data[:begin] + draw.choice(TOKENS) + data[end:]


def _splice(data: bytes, draw: random.Random, seeds: list[bytes]) -> bytes:
    other = draw.choice(seeds)
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def _whole_numbers(data: bytes, draw: random.Random, _: list[bytes]) -> bytes:
    """Another value for a little-endian number, as lengths and offsets are."""
    size = draw.choice((1, 2, 4, 8))
    if len(data) < size:
        return data
    place = draw.randrange(len(data) - size + 1)
    value = draw.choice((0, 1, 0x7F, 0x80, 0xFF, (1 << 8 * size) - 1, 1 << 8 * size - 1, 1 << 16))
    return data[:place] + (value % (1 << 8 * size)).to_bytes(size, "little") + data[place + size :]


def _field(data: bytes, draw: random.Random, seeds: list[bytes]) -> bytes:
    """Another value, or none, at a place of a JSON document."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return _insert(data, draw, seeds)
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if not isinstance(item, dict | list):
            continue
        for key in list(item) if isinstance(item, dict) else range(len(item)):
            places.append((item, key))
            waiting.append(item[key])
    if not places:
        return draw.choice(TOKENS)
    inside, key = draw.choice(places)
    match draw.randrange(6):
        case 0:
            del inside[key]
        case 1 if isinstance(inside, dict):
            inside[draw.choice(("extra", "id", "size", "schema"))] = draw.choice(VALUES)
        case 2:
            inside[key] = str(inside[key])
        case _:
            inside[key] = draw.choice(VALUES)
    try:
        return json.dumps(document).encode()
    except (ValueError, RecursionError):
        return data


_BYTES: tuple[Callable[[bytes, random.Random, list[bytes]], bytes], ...] = (
    _flip, _flip, _cut, _repeat, _insert, _splice, _whole_numbers, _whole_numbers,
)  # fmt: skip
_TEXT = (_flip, _cut, _repeat, _insert, _insert, _splice, _field, _field, _field, _field)
