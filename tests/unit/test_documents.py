"""A document from outside becomes a typed record, or one sentence with file, place and cause."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, strategies as st
from msgspec import Meta

from mobileinst_deploy.core.documents import Blame, convert, parse_json, read_json, read_toml
from mobileinst_deploy.core.errors import BundleError, ConfigError
from mobileinst_deploy.core.text import shown


@dataclass(frozen=True)
class Part:
    kind: Literal["a", "b"]
    count: Annotated[int, Meta(ge=1, le=100)] = 3
    factor: Annotated[float, Meta(ge=0, le=1e6)] = 0.5


@dataclass(frozen=True)
class Record:
    name: Annotated[str, Meta(min_length=1)]
    parts: tuple[Part, ...] = ()
    one: Part = field(default_factory=lambda: Part("a"))
    maybe: int | None = None

    def __post_init__(self) -> None:
        if self.maybe == 5:
            raise ConfigError("maybe is five", "Take another number")


BLAME = Blame("x.json", BundleError, "Write it again")


def test_a_good_document_is_its_record():
    text = b'{"name": "n", "parts": [{"kind": "b", "factor": 2}], "maybe": null}'
    assert parse_json(text, Record, BLAME) == Record("n", (Part("b", factor=2.0),))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_encoding_that_editors_write_is_read(encoding):
    assert parse_json('{"name": "é"}'.encode(encoding), Record, BLAME).name == "é"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "it is not whole JSON: it ends early"),
        (b'{"name": "x"', "it is not whole JSON: it ends early"),
        (b'{"name": "x"} y', "it is not whole JSON: trailing characters (byte 15)"),
        (b'{"maybe": NaN}', "NaN or Infinity, which JSON does not have (byte 10)"),
        (b'{"name": "\xff"}', "a text in it is not UTF-8"),
        (b"[]", "it is an empty list, not a table"),
        (b"[" * 200_000, "it is not a table"),
        (b'{"z": ' + b"[" * 200_000, "it has the unknown field 'z'"),
        (b"{}", "it lacks name"),
        (b'{"name": ""}', "name is '', not a text that says something"),
        (b'{"name": 3}', "name is 3, not a text"),
        (b'{"name": "x", "other": 1}', "it has the unknown field 'other'; known are name, parts"),
        (b'{"name": "x", "one": {}}', "one lacks kind"),
        (b'{"name": "x", "parts": [{"kind": "a"}, 3]}', "parts[1] is 3, not a table"),
        (b'{"name": "x", "parts": [{"kind": "c"}]}', "parts[0].kind is 'c', not 'a' or 'b'"),
        (b'{"name": "x", "one": {"kind": "a", "count": 0}}', "one.count is 0, not a whole number"),
        (
            b'{"name": "x", "one": {"kind": "a", "count": 1%s}}' % (b"0" * 400),
            "one.count is a whole number of about 400 digits, not a whole number from 1 to 100",
        ),
        (
            b'{"name": "x", "one": {"kind": "a", "factor": 1e999}}',
            "one.factor is not a finite number from 0 to 1e+06",
        ),
        (b'{"name": "x", "one": {"kind": "a", "count": 1%s}}' % (b"0" * 9000), "one.count is not"),
        (b'{"name": "x", "maybe": "5"}', "maybe is '5', not a whole number or null"),
        (b'{"name": "x", "maybe": true}', "maybe is true"),
        (b'{"name": "x", "maybe": 5}', "maybe is five"),
        (b'{"name": "\x1b[31m"}', "it is not whole JSON"),
        (b'{"name": "x", "maybe": "\\u001b[31m"}', r"maybe is '\x1b[31m'"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_is_wrong_is_said_with_its_place(text, cause):
    with pytest.raises(BundleError) as caught:
        parse_json(text, Record, BLAME)
    assert caught.value.cause.startswith("x.json: ")
    assert cause in caught.value.cause
    assert caught.value.next_step == "Write it again"


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b"[" * 9000 + b"]" * 9000])
def test_no_nesting_is_too_deep_to_be_refused(text):
    with pytest.raises(BundleError, match="it is nested too deeply"):
        parse_json(text, Any, BLAME)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -1, "1", None, []])
def test_a_number_is_finite_and_within_its_bounds(value: Any):
    with pytest.raises(BundleError, match=r"one\.factor is"):
        convert({"name": "x", "one": {"kind": "a", "factor": value}}, Record, BLAME)


def test_a_file_beyond_its_bound_is_refused_unread(tmp_path: Path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    began = time.perf_counter()
    with pytest.raises(BundleError, match=r"it has 1,099,511,627,776 bytes"):
        read_json(path, Record, BLAME)
    assert time.perf_counter() - began < 1


def test_an_endless_file_is_refused():
    with pytest.raises(BundleError, match="larger than 4,194,304 bytes"):
        read_json(Path("/dev/zero"), Record, BLAME)


@pytest.mark.parametrize(
    "text",
    [
        b"a = " + b"[" * 1000,
        b"a = " + b"{a = " * 1000,
        b"a." * 100_000 + b"a = 1",
        b"[" + b"a." * 100_000 + b"a]",
        b"'a b'. " * 30_000 + b"a = 1",
        b'"' * 200_001,
        b"a" * 200_000,
        b"a = 1" + b"0" * 5000,
        b"name = '\x00'",
        b"\xff",
        b"name = 1979-05-27",
    ],
    ids=lambda text: text[:8].decode("latin-1"),
)
def test_no_toml_does_worse_than_a_sentence(tmp_path: Path, text: bytes):
    path = tmp_path / "x.toml"
    path.write_bytes(text)
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=r"x\.toml"):
        read_toml(path, Record, Blame("x.toml", ConfigError, "Correct it"))
    assert time.perf_counter() - began < 5


@given(st.text(max_size=900))
def test_what_is_shown_is_one_printable_line(text):
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= 600
