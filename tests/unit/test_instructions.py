"""What a count of instructions says: its kinds, and the cycles that no core goes below."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mobileinst_deploy.measure.instructions import (
    CORTEX_A78,
    KINDS,
    InstructionRecord,
    bound,
    multiply_accumulates,
)

COUNTER = Path(__file__).parents[2] / "android_bench" / "counter" / "kinds.h"


@pytest.mark.parametrize(
    ("kinds", "cycles", "by"),
    [
        ({"fmla_128": 100, "load": 30, "other": 50}, 50, "fmla"),
        ({"fmla_half_128": 40, "fmla_scalar": 60}, 50, "fmla"),
        ({"fmla_128": 10, "load": 90, "other": 8}, 30, "load"),
        ({"store": 90, "other": 8}, 45, "store"),
        ({"branch": 80, "other": 8}, 40, "branch"),
        ({"other": 600}, 100, "all"),
    ],
)
def test_the_scarcest_pipeline_binds(kinds: dict[str, int], cycles: int, by: str):
    found = bound(kinds)
    assert (found.cycles, found.by) == (cycles, by)


def test_half_vectors_of_the_same_work_halve_the_bound():
    assert bound({"fmla_half_128": 500}).cycles * 2 == bound({"fmla_128": 1000}).cycles


def test_kinds_are_those_of_the_counter():
    names = re.findall(r'"(\w+)"', COUNTER.read_text().partition("kind_names")[2])
    assert tuple(names) == KINDS


def test_the_record_says_what_its_figures_are():
    kinds = {"fmla_128": 60, "load": 30, "other": 10}
    record = InstructionRecord(
        "0" * 64, "tiny", "plain", "ncnn 1", 2, {"frame": 100}, {"frame": 2}, {"frame": kinds}
    )
    document = record.to_dict()
    assert sum(document["kinds"]["frame"].values()) == document["instructions"]["frame"]
    assert document["bounds"]["frame"] == {"cycles": 30, "by": "fmla"}
    assert re.search(rf"model.*{CORTEX_A78.name}", document["bound_model"])
    assert multiply_accumulates(kinds) == 60
