"""Every option that takes a number has bounds: none is found by nobody, none goes on for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from commands import mobileinst

from mobileinst_deploy.cli.app import app

#: What a command needs beside the option, so that the option itself is what is refused.
WORDS = {
    "export": ["mobileinst-demo", "-o", "{out}"],
    "verify": ["{pair}", "--clip", "{picture}"],
    "bench": ["{pair}"],
    "compare": ["{pair}", "{pair}/../other"],
    "profile": ["{pair}"],
    "run": ["{pair}", "{picture}", "-o", "{out}"],
    "quantize": ["{pair}", "--images", "{picture}", "-o", "{out}"],
}
#: Options that mean something only beside another one.
BESIDE = {
    ("bench", "--fps"): ["--sustained", "5"],
    ("bench", "--max-temp"): ["--device", "adb"],
}


def numeric(command: object, name: str = "") -> Iterator[tuple[str, str, type]]:
    for parameter in command.params:  # type: ignore[attr-defined]
        kind = getattr(parameter, "type_descriptor", None)
        if kind is not None and kind.annotation in (int, float):
            yield name, parameter.opts[-1], kind.annotation
    for child, below in getattr(command, "commands", {}).items():
        yield from numeric(below, f"{name} {child}".strip())


OPTIONS = list(numeric(typer.main.get_command(app)))


def test_there_are_such_options():
    assert ("run", "--score", float) in OPTIONS
    assert ("verify", "--frames", int) in OPTIONS


@pytest.mark.parametrize(("command", "option", "kind"), OPTIONS, ids=lambda v: str(v))
def test_an_absurd_number_is_bad_input(pair: Path, tmp_path: Path, command, option, kind):
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((48, 64, 3), np.uint8))
    out = tmp_path / "out"
    words = [
        word.format(pair=pair, picture=picture, out=out)
        for word in WORDS[command] + BESIDE.get((command, option), [])
    ]
    for number in [10**30, -(10**30)] + (["nan", "inf"] if kind is float else []):
        result = mobileinst(command, *words, f"{option}={number}")
        assert result.exit_code == 2, (number, result.stderr)
        assert not out.exists()
