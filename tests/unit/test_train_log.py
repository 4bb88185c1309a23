"""``training.csv`` of an interrupted run, whatever became of it meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.training.curves import draw_curves
from mobileinst_deploy.training.log import COLUMNS, TrainingLog

HEAD = ",".join(COLUMNS)
LOSSES = dict.fromkeys(("loss", "focal", "dice", "bce", "objectness"), 0.5)


def row(iteration: int | str, **other: str) -> str:
    given = {"iteration": str(iteration), "stage": "image", "lr": "1e-3", "loss": "0.5", **other}
    return ",".join(given.get(name, "") for name in COLUMNS)


def resumed(folder: Path, content: bytes) -> list[int]:
    """The iterations that a resumed run still has in its log, once it has gone on."""
    path = folder / "training.csv"
    path.write_bytes(content)
    log = TrainingLog(path, 5)
    log.row(6, "image", 1e-3, LOSSES, 1.0, 0.0)
    draw_curves(folder)
    head, *rows = path.read_text().splitlines()
    assert head == HEAD
    return [int(line.split(",")[0]) for line in rows]


DAMAGE = {
    "not UTF-8": b"\xff\xfe\x00\x81",
    "text in a loss column": row(3, loss="many").encode(),
    "a loss that is no number": row(3, dice="nan").encode(),
    "endless": row(3, focal="inf").encode(),
    "an open quote": row(3, stage='"image').encode(),
    "zeros": bytes(4000),
    "a line end inside": row(3).encode().replace(b"image", b"im\rage"),
    "cut off": row(3).encode()[:9],
    "too many fields": row(3).encode() + b",1,2",
    "a very long field": row(3, stage="x" * 200_000).encode(),
    "digits without end": row("9" * 5000).encode(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_goes_and_the_others_stay(tmp_path, damage):
    whole = [f"{row(n)}\n".encode() for n in (1, 2, 4, 5, 7)]
    content = b"".join([f"{HEAD}\n".encode(), *whole[:2], DAMAGE[damage] + b"\n", *whole[2:]])
    kept = resumed(tmp_path, content)
    assert [n for n in kept if n != 3] == [1, 2, 4, 5, 6]


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff" * 999, b"a,b\n1,2\n", HEAD.encode()])
def test_a_log_that_is_none_begins_anew(tmp_path, content):
    assert resumed(tmp_path, content) == [6]


def test_a_folder_in_its_place_is_said(tmp_path):
    (tmp_path / "training.csv").mkdir()
    with pytest.raises(OutputError, match=r"training\.csv"):
        TrainingLog(tmp_path / "training.csv", 5)
