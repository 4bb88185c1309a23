"""No input does worse to a reader than a sentence: the short round, and all that was ever found."""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import pytest

from fuzz.mutate import mutated
from fuzz.targets import CORPUS, SECONDS, TARGETS, survives

#: Cases of the short round for each reader, to its share; `make fuzz` tries a million.
CASES = 300
FOUND = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def seeds() -> dict[str, list[bytes]]:
    return {name: target.seeds() for name, target in TARGETS.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_inputs_are_made_of_is_good(name, seeds):
    taken = [survives(TARGETS[name], data) for data in seeds[name]]
    # A whole network in a seed would make every case slow: weights are read, and found too few.
    assert taken[0] or name == "safetensors"


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(CORPUS)))
def test_what_was_once_found_stays_fixed(path: Path):
    began = time.perf_counter()
    survives(TARGETS[path.parent.name], path.read_bytes())
    assert time.perf_counter() - began < SECONDS


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutation_does_worse_than_a_sentence(name, seeds):
    target, first = TARGETS[name], zlib.crc32(name.encode())
    for number in range(round(CASES * target.share)):
        data = mutated(first + number, seeds[name], text=target.text)
        began = time.perf_counter()
        survives(target, data)
        assert time.perf_counter() - began < SECONDS, f"case {number} took too long"
