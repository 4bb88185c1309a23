"""compare as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import mobileinst

BRIEF = ("--runs", "8", "--warmup", "0", "--seconds", "0", "--clip-lengths", "1")


@pytest.fixture
def other(pair: Path) -> Path:
    return shutil.copytree(pair, pair.with_name("other"))


def test_two_pairs_are_compared_for_people_and_for_scripts(pair: Path, other: Path):
    done = mobileinst("compare", pair, other, *BRIEF, "--to", other, "--json")
    assert done.exit_code == 4  # eight runs are not fifty
    document = json.loads(done.stdout)
    assert document["to"] == "other"
    assert [row["name"] for row in document["rows"]] == ["pair", "other"]
    assert document["rows"][1]["latency"]["ratios"][0]["ratio"] == 1
    assert "run in turn" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "{missing}"), "none of the pairs"),
        (("--plot", "{folder}/p.png"), ".svg"),
        (("--plot", "{folder}/p.svg"), "was evaluated"),
        (("--device", "tpu"), "tpu"),
        (("--serial", "R58"), "--serial"),
        (("{missing}",), "missing"),
        (("--clip-lengths", "0"), "clip lengths"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_a_comparison_that_cannot_be_is_refused(pair: Path, other: Path, tmp_path, words, said):
    words = [word.format(missing=tmp_path / "missing", folder=tmp_path) for word in words]
    done = mobileinst("compare", pair, other, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not list(tmp_path.glob("*.svg"))
