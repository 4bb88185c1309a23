"""The runner built for this machine under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import onnxruntime
import pytest
import tiny_pair

from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.phone.plan import PLAN_FILE, Plan
from mobileinst_deploy.phone.result import RunnerResult, read_result

SOURCES = Path(__file__).parents[2] / "android_bench"
BUILD = SOURCES / "build" / "host-sanitized"
#: The host's own library, opened the same way as the phone's.
LIBRARY = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"), None)


@functools.cache
def program(name: str = "mobileinst_runner") -> Path:
    """Build once, incrementally, and give the path of one program; skip where nothing builds."""
    if not (shutil.which("cmake") and shutil.which("ninja") and shutil.which("g++")):
        pytest.skip("no native build; run: sudo apt-get install cmake ninja-build g++")
    BUILD.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(BUILD / ".test-lock", timeout=600):
        for command in (
            ["cmake", "--preset", "host-sanitized", "-G", "Ninja"],
            ["cmake", "--build", "--preset", "host-sanitized", "-j", "2"],
        ):
            done = subprocess.run(
                command, cwd=SOURCES, capture_output=True, text=True, timeout=600, check=False
            )
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return BUILD / name


@dataclass(frozen=True)
class Finished:
    """One start of the runner."""

    folder: Path
    stdout: str
    stderr: str
    exit_code: int

    @property
    def result(self) -> RunnerResult:
        return read_result(self.stdout, self.exit_code, self.stderr)


def start(
    folder: Path,
    plan: Plan,
    *,
    edit: Callable[[str], str] = str,
    library: str | None = None,
    graphs: dict[Role, Path] | None = None,
    before: Callable[[], None] | None = None,
) -> Finished:
    """Write a plan, let ``edit`` change its text, and run it in an empty home folder.

    ``before`` runs in the new process, to take things away from it.
    """
    assert LIBRARY is not None
    paths = graphs or tiny_pair.build(folder)
    work = folder / "work"
    work.mkdir()
    (folder / "home").mkdir()
    plan.write(work, library or str(LIBRARY), {role: str(p) for role, p in paths.items()})
    text = (work / PLAN_FILE).read_text()
    (work / PLAN_FILE).write_text(edit(text))
    done = subprocess.run(
        [program(), work / PLAN_FILE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            "HOME": str(folder / "home"),
            "ASAN_OPTIONS": "detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        preexec_fn=before,
        restore_signals=False,
    )
    assert "Sanitizer" not in done.stderr, done.stderr[:4000]
    assert "runtime error" not in done.stderr, done.stderr[:4000]
    return Finished(work, done.stdout, done.stderr, done.returncode)


def find_library(name: str) -> str:
    """The path of a system library that this very process has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith(f"lib{name}."):
            return path
    pytest.skip(f"lib{name} is not loaded here")
