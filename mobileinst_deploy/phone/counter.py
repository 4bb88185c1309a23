"""The instruction counter: a plugin for qemu, and a clock that stands still for the runner.

Both are built here from ``android_bench/counter``. Instructions executed between the runner's marks
are the one figure that a shared, noisy machine can gate on: equal to the digit from run to run.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.errors import DeviceError, MeasurementInvalid
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.measure.instructions import KINDS, Kinds
from mobileinst_deploy.phone import toolchain
from mobileinst_deploy.phone.result import RunnerResult


@dataclass(frozen=True)
class Counter:
    """The built counter.

    Attributes:
        plugin: For qemu's ``-plugin``, built for this machine.
        still_clock: For the loader's ``--preload``, built for aarch64.
    """

    plugin: Path
    still_clock: Path


@dataclass(frozen=True)
class Instructions:
    """Executed ARM instructions of one graph's run: deterministic, and not a latency.

    Attributes:
        role: Which graph.
        count: Instructions between the runner's two marks around one run.
        runs: How many starts of the runner gave that very count.
        kinds: The same instructions by kind.
    """

    role: Role
    count: int
    runs: int
    kinds: Kinds


def build_counter(cache: Path) -> Counter:
    """Compile both parts, or take them from the cache.

    Args:
        cache: An existing folder; they go into one of its own, named by their sources' content.

    Raises:
        DeviceError: A compiler is missing or fails.
    """
    sources = toolchain.counter_sources()
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    folder = cache / f"counter-{digest.hexdigest()[:16]}"
    built = Counter(folder / "libcounter.so", folder / "libstillclock.so")
    if built.plugin.is_file() and built.still_clock.is_file():
        return built
    source = {s.name: str(s) for s in sources}
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder) as name:
        plugin, clock = name / built.plugin.name, name / built.still_clock.name
        toolchain.compile_shared(host_compiler(), source["counter.c"], plugin)
        # It needs nothing of libc, and so fits whatever glibc the bundle holds.
        toolchain.compile_shared(
            toolchain.device_compiler(), source["still_clock.c"], clock, "-nostdlib"
        )
        plugin.replace(built.plugin)
        clock.replace(built.still_clock)
    return built


def read_counts(log: Path, result: RunnerResult) -> dict[Role, Kinds]:
    """Join the plugin's log with the runner's marks.

    Args:
        log: What the plugin wrote: ``kinds K NAME=COUNT ...`` lines.
        result: Of a plan with one counted run of each graph.

    Returns:
        Executed instructions of each graph by kind.

    Raises:
        DeviceError: A mark is missing from the log.
    """
    text = log.read_text() if log.is_file() else ""
    marks = {
        int(mark): {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", counted)}
        for mark, counted in re.findall(r"^kinds (\d+)((?: \w+=\d+)+)$", text, re.MULTILINE)
    }
    counts: dict[Role, Kinds] = {}
    for mark in result.marks:
        if mark.begin not in marks or mark.end not in marks:
            raise DeviceError(
                "the instruction counter missed a mark of the runner",
                "Run it again; if it persists, use the dynamic qemu-user of Debian 12 (7.2)",
            )
        begin, end = marks[mark.begin], marks[mark.end]
        counts[mark.role] = {name: end.get(name, 0) - begin.get(name, 0) for name in KINDS}
    return counts


def agreed(logs: Sequence[Mapping[Role, Kinds]]) -> dict[Role, Instructions]:
    """The counts that every start gave.

    Args:
        logs: One mapping from graph to counts by kind for each start of the runner.

    Raises:
        MeasurementInvalid: Two starts differ.
    """
    for role in logs[0]:
        counts = [sum(log[role].values()) for log in logs]
        if len(set(counts)) != 1:
            raise MeasurementInvalid(
                f"the {role} graph executed {' and '.join(map(str, counts))} instructions in starts"
                " that should be alike",
                "Count again; if it persists, report it: something in the run depends on chance",
            )
    return {
        role: Instructions(role, sum(kinds.values()), len(logs), kinds)
        for role, kinds in logs[0].items()
    }


def host_compiler() -> list[str]:
    """A C compiler for this machine.

    Raises:
        DeviceError: None is installed.
    """
    for name in ("cc", "gcc", "clang"):
        if found := which(name):
            return [found]
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise DeviceError(
        "counting needs a C compiler for this machine, to build qemu's plugin",
        f"Run `{sys.executable} -m pip install ziglang`, or `sudo apt-get install gcc libc6-dev`",
    )
