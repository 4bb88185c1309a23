"""What people see: text from files and devices is shown as it is, and controls nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import mobileinst
from forgery import edit_graph
from rich.table import Table

from mobileinst_deploy.cli import console
from mobileinst_deploy.core.errors import ConfigError, OutputError

HOSTILE = [
    "[/]",
    "[bold]loud[/bold]",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\rb",
    "\x9b31m",
    "\u202eturned",
    "\udc80",
    ":smile:",
]
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def said(capsys) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("way", ["cell", "title", "sentence", "note", "error"])
def test_no_text_is_taken_for_markup_or_for_control(capsys, text: str, way: str):
    if way in ("cell", "title"):
        table = Table(title=text if way == "title" else None, caption=text)
        table.add_column(text)
        table.add_row(text)
        console.show(table)
    elif way == "sentence":
        console.show(text)
    elif way == "note":
        console.note(text)
    else:
        console.fail(ConfigError(text, text), json=False)
    told = said(capsys)
    assert not CONTROLS.search(told)
    if text.isascii() and text.isprintable():
        assert text in told


def test_a_message_is_one_line_of_bearable_length(capsys):
    console.fail(ConfigError("x\ny" * 10_000, "Mend it"), json=False)
    first, second = said(capsys).splitlines()
    assert first.startswith("error: x\\ny")
    assert len(first) < 700
    assert second == "Mend it."


def test_machines_get_the_message_and_the_place(capsys):
    console.answer_failure(ConfigError("x\n" * 1000, "Mend it", where="a\x1b[31m"))
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["cause"].startswith("x\\nx")
    assert error["next_step"] == "Mend it"
    assert error["where"] == "a\x1b[31m"


def test_there_is_one_document_even_after_a_failure(capsys):
    with console.one_answer():
        with pytest.raises(ConfigError):
            console.answer({"passed": False}, ConfigError("no", "Mend it"))
        console.fail(ConfigError("no", "Mend it"), json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    assert document["error"]["next_step"] == "Mend it"


def test_metadata_of_a_graph_reaches_no_terminal_as_control(pair: Path):
    def unkind(graph) -> None:
        graph.metadata_props.add(key="mobileinst.\x1b[31m", value="[/]\x1b[2J")
        graph.graph.node[0].name = "\x1b[31m"

    edit_graph(pair, "frame", unkind)
    for words in (["inspect", pair], ["inspect", pair / "frame.onnx"], ["verify", pair]):
        result = mobileinst(*words)
        assert result.exit_code == 0, result.stderr
        assert "\x1b" not in result.stdout + result.stderr


def test_names_of_files_reach_no_terminal_as_control(tmp_path: Path):
    result = mobileinst("inspect", tmp_path / "\x1b[31m[/]")
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert "\\x1b[31m[/]" in result.stderr


@pytest.mark.parametrize("words", [["verify", "x", "--\x1b[31m"], ["\x1b[31m"]])
def test_a_command_line_reaches_no_terminal_as_control(words):
    result = mobileinst(*words)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr


def test_long_work_says_how_far_it_is_every_ten_seconds_away_from_a_terminal(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mobileinst_deploy.cli.console.time.monotonic", lambda: now[0])
    with console.progress_bar() as progress:
        for second in range(36):
            now[0] = float(second)
            progress("export", second, 36)
            progress("count", second, None)
    assert capsys.readouterr().err.splitlines() == [
        "export: 10 of 36, 10 s",
        "export: 20 of 36, 20 s",
        "export: 30 of 36, 30 s",
    ]


def test_a_terminal_that_is_gone_has_nobody_to_tell(monkeypatch):
    class Gone:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

        def isatty(self) -> bool:
            return False

        def fileno(self) -> int:
            raise OSError(25, "no terminal")

    monkeypatch.setattr("sys.stderr", Gone())
    console.note("nobody hears this")
    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(OutputError, match="stdout cannot be written"):
        console.answer({"a": 1})
