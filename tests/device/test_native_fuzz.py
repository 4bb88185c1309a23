"""What the native fuzzers start from and what they ever found ends well, under sanitizers."""

from __future__ import annotations

import subprocess

import native
import numpy as np
import pytest

TARGETS = ("plan", "frames", "state", "tracker")
CORPUS = native.SOURCES / "fuzz" / "corpus"


def go_through(target: str, inputs: list[object]) -> subprocess.CompletedProcess[str]:
    command = [native.program(f"fuzz_{target}"), *inputs]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_ends_well(target: str):
    inputs = sorted((CORPUS / target).glob("*"))
    done = go_through(target, inputs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{len(inputs)} inputs\n"


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_round_of_random_inputs_ends_well(target: str, tmp_path):
    rng = np.random.default_rng(15)
    seeds = [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))] or [b""]
    for index in range(300):
        data = bytearray(seeds[index % len(seeds)] + rng.bytes(rng.integers(0, 600)))
        for place in rng.integers(0, len(data) + 1, 4):
            data[place : place + rng.integers(0, 3)] = rng.bytes(rng.integers(0, 3))
        (tmp_path / f"{index:03}").write_bytes(data)
    done = go_through(target, sorted(tmp_path.glob("*")))
    assert (done.returncode, done.stderr) == (0, "")
