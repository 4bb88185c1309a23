"""Does an ONNX graph keep data in other files, or hold loops? Told from its bytes, before any load.

A runtime would read such a file by its path, and no checksum of the pair covers it. A loop says by
a number how often it runs, and 2**62 is a number; no network that is traced has one. This walks
protobuf's wire format through every message of onnx.proto that may hold a tensor, so that nothing
hides in a subgraph, a function or a constant, and it needs nothing but Python.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MOST_NESTED = 100
_MOST_FIELDS = 2_000_000
#: onnx.proto: the fields of each message that lead to tensors, and the messages that they hold.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}


_OP_TYPE = 4
_LOOPS = (b"Loop", b"Scan")


def has_external_data(model: bytes) -> bool:
    """Whether a serialised model names data that is not in it.

    Raises:
        ValueError: It is not in protobuf's form.
    """
    return "external data" in _found(model)


def fault_of(model: bytes) -> str | None:
    """Why a serialised model must not be loaded, or None.

    Raises:
        ValueError: It is not in protobuf's form.
    """
    found = _found(model)
    if "external data" in found:
        return "keeps its weights in another file"
    return "holds a loop, which may never end" if found else None


def _found(model: bytes) -> set[str]:
    open_messages = [(memoryview(model), "model", 0)]
    seen = 0
    found = set[str]()
    while open_messages:
        message, kind, depth = open_messages.pop()
        if depth > _MOST_NESTED:
            raise ValueError("it is nested too deeply")
        for number, value in _fields(message):
            seen += 1
            if seen > _MOST_FIELDS:
                raise ValueError(f"it has more than {_MOST_FIELDS} fields")
            if kind == "tensor":
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                    found.add("external data")
                continue
            if (
                kind == "node"
                and number == _OP_TYPE
                and isinstance(value, memoryview)
                and value.tobytes() in _LOOPS
            ):
                found.add("loop")
            inner = _FIELDS[kind].get(number)
            if inner is not None and isinstance(value, memoryview):
                open_messages.append((value, inner, depth + 1))
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Every field's number with its bytes, or its value where that is a varint."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, form = tag >> 3, tag & 7
        if form == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if form == _LENGTH:
            length, at = _varint(message, at)
        elif form in (_FIXED32, _FIXED64):
            length = 4 if form == _FIXED32 else 8
        else:
            raise ValueError(f"field {number} has the unknown form {form}")
        if length > end - at:
            raise ValueError("it was cut off")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number in it does not end")
