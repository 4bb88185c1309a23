"""``android_bench/README.md`` builds from scratch as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import native
import pytest

README = (native.SOURCES / "README.md").read_text()
#: Blocks of commands by the last line before them that says what they are for.
BLOCKS = re.findall(r"^([^\n]*:)\n```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
#: A block is tried where the machine has what it names.
NEEDS = {"aarch64-debian": "aarch64-linux-gnu-g++", "cmake": "ninja", "g++": "g++", "cc": "cc"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The sources as they are in the repository, with no build beside them."""
    folder = tmp_path / "android_bench"
    shutil.copytree(native.SOURCES, folder, ignore=shutil.ignore_patterns("build"))
    return folder


def test_there_is_a_block_for_each_way():
    commands = "".join(block for _, block in BLOCKS)
    assert {"host-sanitized", "aarch64-debian", "aarch64-zig"} <= set(
        re.findall(r"--preset (\S+)", commands)
    )
    assert "-lstdc++ -lm" in commands


def block(title: str, commands: str) -> object:
    """A case; zig compiles its own C++ library first, which takes minutes with a cold cache."""
    marks = [pytest.mark.slow] if "zig" in commands else []
    return pytest.param(commands, id=title[:40], marks=marks)


@pytest.mark.parametrize("commands", [block(*parts) for parts in BLOCKS])
def test_a_block_builds_from_scratch(checkout: Path, commands: str):
    for word, program in NEEDS.items():
        if word in commands and shutil.which(program) is None:
            pytest.skip(f"no {program}; run: make apt")
    here = str(Path(sys.executable).parent)
    environment = {
        "PATH": f"{here}:/usr/bin:/bin",
        "HOME": str(checkout),
        "CMAKE_GENERATOR": "Ninja",
    }
    for cache in ("ZIG_GLOBAL_CACHE_DIR", "XDG_CACHE_HOME"):
        if cache in os.environ:
            environment[cache] = os.environ[cache]
    done = subprocess.run(
        ["sh", "-eu", "-c", commands],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert list(checkout.glob("build/*"))
