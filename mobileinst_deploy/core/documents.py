"""Documents from outside: JSON and TOML, read within bounds into typed records, one error for all.

What a document may hold is said once, by the types of the record that it becomes: numbers carry
their bounds, unknown fields are refused, nothing is converted in silence. msgspec holds documents
against those types; this module turns whatever it, the file system or the recursion limit says into
one sentence that names the file, the field or entry, what is there and what belongs there.

Example:
    >>> class Row(msgspec.Struct):
    ...     clips: Annotated[int, msgspec.Meta(ge=1, le=100)]
    >>> parse_json(b'{"clips": 0}', Row, Blame("run.json", MobileInstError, "Run it again"))
    Traceback (most recent call last):
    mobileinst_deploy.core.errors.MobileInstError: run.json: clips is 0, not a whole number from...
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.core.text import shown

_T = TypeVar("_T")

#: Of a JSON or TOML file that people or this program write; lists of data have bounds of their own.
JSON_BYTES = 4 << 20
TOML_BYTES = 256 << 10
#: JSON holds no larger whole number that every reader agrees on (RFC 8259, section 6).
MAX_WHOLE = 2**53

Whole = Annotated[int, msgspec.Meta(ge=0, le=MAX_WHOLE)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

_PLACE = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_MISSING_FIELD = re.compile(r"missing required field `(.*)`")
_UNKNOWN_FIELD = re.compile(r"contains unknown field `(.*)`", re.DOTALL)
# tomllib's time grows with the square of a dotted key's length.
_KEY_PARTS = 32
_KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_DOTTED_KEY = re.compile(rf"{_KEY}(?:[ \t]*+\.[ \t]*+{_KEY})*+")
_TRUNCATED = "Input data was truncated"

Step = str | int


@dataclass(frozen=True)
class Blame:
    """Who is told, and how, when a document cannot be used.

    Attributes:
        where: The document, for people: a path, or for example ``the runner's result``.
        error: The class of what is raised.
        next_step: What its reader can do.
    """

    where: str
    error: type[MobileInstError]
    next_step: str

    def wrong(self, cause: str) -> MobileInstError:
        """The error for a document of which ``cause`` is wrong."""
        return self.error(f"{self.where}: {cause}", self.next_step, self.where)


def read_json(path: Path, kind: type[_T], blame: Blame, *, most: int = JSON_BYTES) -> _T:
    """Read a JSON file as ``kind``.

    Args:
        path: The file.
        kind: A :class:`msgspec.Struct`, a dataclass whose fields are bounded by their types, or any
            other type that msgspec knows.
        blame: For errors.
        most: The largest file that is read, bytes.

    Raises:
        MobileInstError: ``blame.error``, whatever is wrong.
    """
    return parse_json(read_within(path, most, blame), kind, blame)


def parse_json(data: bytes, kind: type[_T], blame: Blame) -> _T:
    """Read JSON text as ``kind``; the arguments and errors are those of :func:`read_json`."""
    data = as_utf8(data)
    try:
        found = msgspec.json.decode(data, type=_form(kind))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise blame.wrong(_json_cause(error, data, kind)) from None
    except MobileInstError as error:
        raise _blamed(error, blame) from error
    return cast(_T, _made(kind, found, blame))


def read_toml(path: Path, kind: type[_T], blame: Blame) -> _T:
    """Read a TOML file as ``kind``; the arguments and errors are those of :func:`read_json`."""
    data = read_within(path, TOML_BYTES, blame)
    try:
        text = data.decode("utf-8-sig")
        if any(key[0].count(".") > _KEY_PARTS for key in _DOTTED_KEY.finditer(text)):
            raise blame.wrong(f"it has a key of more than {_KEY_PARTS} parts")
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        nested = isinstance(error, RecursionError)
        reason = "it is nested too deeply" if nested else f"it is not TOML: {shown(str(error))}"
        raise blame.wrong(reason) from None
    return convert(document, kind, blame)


def convert(document: Any, kind: type[_T], blame: Blame) -> _T:
    """Take a document that is read already as ``kind``; arguments and errors as above."""
    try:
        found = msgspec.convert(document, _form(kind))
    except (msgspec.ValidationError, RecursionError) as error:
        raise blame.wrong(_cause(error, kind, lambda steps: _value_at(document, steps))) from None
    return cast(_T, _made(kind, found, blame))


def check(record: Any, error: type[MobileInstError]) -> None:
    """Hold a dataclass that code made against its own types, as a document would be.

    Raises:
        MobileInstError: ``error``, for a field of another type or out of its bounds.
    """
    try:
        msgspec.convert(record, _form(type(record)), from_attributes=True)
    except msgspec.ValidationError as fault:
        cause = _cause(fault, type(record), lambda steps: _value_at(record, steps))
        raise error(cause, "Correct it") from None


def read_within(path: Path, most: int, blame: Blame) -> bytes:
    """A file's bytes, unless there are more than ``most``.

    Raises:
        MobileInstError: ``blame.error``: it cannot be read, or is larger.
    """
    try:
        # Without blocking: opening a pipe that nobody writes would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size > most:
                raise blame.wrong(f"it has {status.st_size:,} bytes, and {most:,} are the most")
            data = file.read(min(most, max(status.st_size, 1 << 20)) + 1)
            while more := file.read(1 << 20) if len(data) <= most else b"":
                data += more  # a pipe, or a file that grows
    except (OSError, ValueError) as error:
        raise blame.wrong(f"it cannot be read: {reason_of(error)}") from error
    if len(data) > most:
        raise blame.wrong(f"it is larger than {most:,} bytes")
    return data


def reason_of(error: OSError | ValueError) -> str:
    """What the operating system says, without the path that a sentence names already."""
    return getattr(error, "strerror", None) or shown(str(error))


def as_utf8(data: bytes) -> bytes:
    """Without the mark that some editors put first; UTF-16, as PowerShell writes, as UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace").encode("utf-8", errors="replace")
    return data.removeprefix(b"\xef\xbb\xbf")


def _json_cause(error: Exception, data: bytes, kind: Any) -> str:
    if isinstance(error, msgspec.ValidationError | RecursionError):
        return _cause(error, kind, lambda steps: _raw_value_at(data, steps))
    if isinstance(error, UnicodeDecodeError):
        return "it is not whole JSON: a text in it is not UTF-8"
    said = str(error).removeprefix("JSON is malformed: ")
    at = re.search(r"\(byte (\d+)\)$", said)
    if at and data[int(at[1]) : int(at[1]) + 1] in (b"N", b"I"):
        said = f"NaN or Infinity, which JSON does not have (byte {at[1]})"
    return f"it is not whole JSON: {'it ends early' if said == _TRUNCATED else shown(said)}"


def _cause(error: Exception, kind: Any, value_at: Any) -> str:
    """What msgspec says, in this project's words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error)
    place = _PLACE.search(text)
    path = place["path"] if place else ""
    text = text[: place.start()] if place else text
    steps: list[Step] = []
    for name, index in _STEP.findall(path):
        if index == "...":
            break
        steps.append(name or int(index))
    what, wanted = "".join(f".{s}" if isinstance(s, str) else f"[{s}]" for s in steps), ""
    what = what.removeprefix(".")
    if missing := _MISSING_FIELD.search(text):
        return f"{what} lacks {missing[1]}" if what else f"it lacks {missing[1]}"
    info = _type_at(kind, steps)
    if unknown := _UNKNOWN_FIELD.search(text):
        known = ", ".join(f.name for f in getattr(info, "fields", ()))
        there = f"{what} has" if what else "it has"
        return f"{there} the unknown field {shown(unknown[1], 60)!r}; known are {known}"
    if not text.startswith(("Expected", "Invalid", "Number", "Integer")):
        return f"{what or 'it'} {shown(text)}"  # a record's own check
    wanted = _wanted(info) or shown(text)
    try:
        value = _described(value_at(steps))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return f"{what or 'it'} is not {wanted}"
    return f"{what or 'it'} is {value}, not {wanted}"


def _value_at(document: Any, steps: list[Step]) -> Any:
    for step in steps:
        inside = isinstance(document, Mapping | list | tuple)
        document = document[step] if inside else getattr(document, str(step))
    return document


def _raw_value_at(data: bytes, steps: list[Step]) -> Any:
    """The value at a place of a JSON text, without decoding what lies elsewhere."""
    raw = msgspec.Raw(data)
    for step in steps:
        kind = dict[str, msgspec.Raw] if isinstance(step, str) else list[msgspec.Raw]
        raw = msgspec.json.decode(raw, type=kind)[step]  # type: ignore[index]
    return msgspec.json.decode(raw)


def _described(value: Any) -> str:
    """A value for a message; of what is long or deep only its kind."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of about {value.bit_length() * 0.30103:.0f} digits"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "an empty list" if not value else f"a list of {len(value)}"
    return shown(repr(value), 60)


def _type_at(kind: Any, steps: list[Step]) -> Any:
    """How msgspec describes the type at a place; None where it cannot."""
    info: Any = msgspec.inspect.type_info(_form(kind))
    for step in steps:
        options = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
        found = None
        for option in options:
            if isinstance(step, str) and hasattr(option, "fields"):
                found = next((f.type for f in option.fields if f.encode_name == step), None)
            elif isinstance(step, str) and hasattr(option, "value_type"):
                found = option.value_type
            elif isinstance(step, int) and hasattr(option, "item_types"):
                found = option.item_types[step] if step < len(option.item_types) else None
            elif isinstance(step, int) and hasattr(option, "item_type"):
                found = option.item_type
            if found is not None:
                break
        if found is None:
            return None
        info = found
    return info


def _wanted(info: Any) -> str:
    """What a type takes, in words; empty where only msgspec can say it."""
    types = msgspec.inspect
    match info:
        case types.UnionType():
            return " or ".join(filter(None, map(_wanted, info.types)))
        case types.LiteralType():
            *most, last = (repr(value) for value in info.values)
            return f"{', '.join(most)} or {last}" if most else last
        case types.IntType() | types.FloatType():
            noun = "a whole number" if isinstance(info, types.IntType) else "a finite number"
            return noun + _range(info)
        case types.BoolType():
            return "true or false"
        case types.StrType():
            if info.pattern is not None:
                return f"a text of the form {info.pattern}"
            return "a text" if not info.min_length else "a text that says something"
        case types.NoneType():
            return "null"
        case types.TupleType():
            return f"a list of {len(info.item_types)}"
        case types.ListType() | types.VarTupleType():
            return "a list" + (" with something in it" if info.min_length else "")
        case types.DictType() | types.StructType():
            return "a table"
    return ""


def _range(info: Any) -> str:
    low = info.gt if info.ge is None else info.ge
    high = info.lt if info.le is None else info.le
    above = "above " if info.ge is None and low is not None else "from "
    below = " below " if info.le is None and high is not None else " to "
    if low is None and high is None:
        return ""
    if low is None:
        return f"{below}{high:g}" if below == " below " else f" up to {high:g}"
    most = "" if high is None else f"{below}{_figure(high)}"
    return f" {above}{_figure(low)}" + (most or (" up" if above == "from " else ""))


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


# Dataclasses. msgspec takes them as they are but overlooks unknown fields, and runs the checks of
# their own in its midst; so a document becomes a strict struct of the same fields first.


def _form(kind: Any) -> Any:
    """``kind`` with a strict struct in place of every dataclass in it."""
    return _cached_form(kind)


@cache
def _cached_form(kind: Any) -> Any:
    if is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        specs: list[Any] = []
        for f in fields(kind):
            hint = _form(hints[f.name])
            optional = f.default is not MISSING or f.default_factory is not MISSING
            unset = (f.name, hint | msgspec.UnsetType, msgspec.UNSET)
            specs.append(unset if optional else (f.name, hint))
        return msgspec.defstruct(
            cast(type, kind).__name__,
            specs,
            frozen=True,
            kw_only=True,
            forbid_unknown_fields=True,
        )
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return Annotated[(_form(arguments[0]), *arguments[1:])]
    if origin in (Union, UnionType):
        return Union[tuple(map(_form, arguments))]  # noqa: UP007 - made while running
    if origin in (tuple, list, dict):
        return origin[tuple(a if a is ... else _form(a) for a in arguments)]
    return kind


def _made(kind: Any, found: Any, blame: Blame) -> Any:
    """The dataclasses of ``kind`` from the structs that stood for them."""
    try:
        return _built(kind, found)
    except MobileInstError as error:
        raise _blamed(error, blame) from error


def _blamed(error: MobileInstError, blame: Blame) -> MobileInstError:
    """What a record's own check said, as an error of the document."""
    step = error.next_step if isinstance(error, blame.error) else blame.next_step
    return blame.error(f"{blame.where}: {error.cause}", step, blame.where)


def _built(kind: Any, found: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        # Of records that may stand here, the one whose struct was found.
        kind = next((a for a in get_args(kind) if _form(a) is type(found)), kind)
    if is_dataclass(kind) and isinstance(found, msgspec.Struct):
        hints = get_type_hints(kind)
        given = {n: getattr(found, n) for n in found.__struct_fields__}
        values = {n: _built(hints[n], v) for n, v in given.items() if v is not msgspec.UNSET}
        return cast(type, kind)(**values)
    if isinstance(found, tuple | list) and get_args(kind):
        return type(found)(_built(get_args(kind)[0], item) for item in found)
    return found
