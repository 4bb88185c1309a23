"""The header's promises about threads and lifetimes, kept under three sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import native
import pytest


@pytest.fixture(scope="module")
def under_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``track_rules`` under ThreadSanitizer, which does not go with the other two."""
    native.program("track_rules")
    program = tmp_path_factory.mktemp("tsan") / "track_rules"
    command = ["g++", "-std=c++17", "-O1", "-g1", "-fsanitize=thread", "-pthread"]
    folders = [f"-I{native.SOURCES / name}" for name in ("include", "src")]
    sources = [native.SOURCES / "tests" / "track_rules.cc", *native.SOURCES.glob("src/track_*.cc")]
    subprocess.run([*command, *folders, *sources, "-o", program], check=True, timeout=300)
    return program


def run(program: Path, *what: str) -> subprocess.CompletedProcess[str]:
    # Where addresses are drawn from more bits than ThreadSanitizer expects, it does not start.
    command = ["setarch", "-R", program, *what]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_all_lives_as_long_as_the_header_says():
    done = run(native.program("track_rules"), "within")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("what", ["counts", "tracker"])
def test_what_is_used_after_its_end_is_noticed(what: str):
    """Or the test above could not fail."""
    done = run(native.program("track_rules"), "late", what)
    assert done.returncode != 0
    assert "heap-use-after-free" in done.stderr


def test_trackers_do_not_know_of_each_other_and_may_be_handed_on(under_threads: Path):
    done = run(under_threads, "threads")
    assert (done.returncode, done.stderr) == (0, "")


def test_two_threads_on_one_tracker_are_noticed(under_threads: Path):
    done = run(under_threads, "race")
    assert "data race" in done.stderr
