"""What the on-device runner says: its one JSON document and the tensors it wrote.

The format is described in ``android_bench/README.md``. Nothing here starts a process: the adb and
qemu adapters do, with the files that :meth:`mobileinst_deploy.phone.plan.Plan.write` leaves and
the streams that :func:`read_result` takes.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.documents import Blame, Whole, parse_json
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.measure.samples import Milliseconds, Sample, Schedule
from mobileinst_deploy.phone.plan import Mode

Dtype = Literal["float32", "uint8", "int32", "int64"]
Length = Annotated[int, Meta(ge=1, lt=2**28)]
#: A name becomes a path on this machine, so a device must not be able to choose the folder.
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$")]
Word = Annotated[str, Meta(max_length=200)]
BEGIN = "=====MOBILEINST-RESULT-BEGIN====="
END = re.compile(r"=====MOBILEINST-RESULT-END (\d{1,12})=====")

_NEXT_STEPS = {
    "plan": "Report this: the plan was written by this program",
    "library": "Assemble the bundle again with `mobileinst device prepare --force`",
    "graph": "Export the model again, and check that host and device have the same ONNX Runtime",
    "contract": "Export the model again so that its manifest and its graphs belong together",
    "affinity": "Choose another core with --core, or let --core auto choose",
    "files": "Check the free space on the device, then run again so that everything is pushed anew",
    "run": "Verify the pair on this machine with `mobileinst verify DIR --device cpu`",
    "nonfinite": "Verify the pair on this machine with `mobileinst verify DIR --device cpu`",
    "limit": "Give it more time, fewer runs or a smaller model",
    "memory": "Close other apps on the device, or use a smaller model or picture",
}


@dataclass(frozen=True)
class ResultTensor:
    """One tensor file that the runner wrote into its output folder."""

    name: Word
    dtype: Dtype
    shape: Annotated[tuple[Length, ...], Meta(max_length=8)]
    file: FileName
    bytes: Whole
    crc32: Word

    def __post_init__(self) -> None:
        if self.bytes != math.prod(self.shape) * np.dtype(self.dtype).itemsize:
            raise DeviceError(
                f"the tensor {shown(self.name, 60)!r}, {self.dtype} {self.shape}, has "
                f"{self.bytes} bytes",
                _NEXT_STEPS["library"],
            )


@dataclass(frozen=True)
class CallResult:
    """One run outside a schedule."""

    role: Role
    prepare_ms: Milliseconds
    run_ms: Milliseconds
    results: tuple[ResultTensor, ...] = ()


@dataclass(frozen=True)
class Mark:
    """The two marker values around one counted run."""

    call: Whole
    role: Role
    begin: Whole
    end: Whole


@dataclass(frozen=True)
class RunnerResult:
    """What a finished runner says.

    Attributes:
        mode: The plan's mode.
        abi: ``aarch64``, ``x86_64``.
        runtime: Name and version of what ran the graphs, such as ``onnxruntime 1.32.0``.
        core: The core asked for, or None.
        affinity: The cores that the kernel allowed when asked after pinning.
        peak_memory_kib: Highest resident memory of the process, KiB, or None if unknown.
        load_ms: Time to load each graph.
        calls: Runs of ``outputs``, ``count`` and ``profile``, in order.
        warmups: Untimed runs of ``bench``.
        schedules: One for each T of ``bench``.
        marks: Of ``count``.
        profiles: Of ``profile``: file name in the output folder by graph.
    """

    mode: Mode
    abi: str
    runtime: str
    core: int | None
    affinity: tuple[int, ...]
    peak_memory_kib: int | None
    load_ms: Mapping[Role, float]
    calls: tuple[CallResult, ...]
    warmups: tuple[Sample, ...]
    schedules: tuple[Schedule, ...]
    marks: tuple[Mark, ...]
    profiles: Mapping[Role, str]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files to fetch from the runner's output folder."""
        tensors = [t.file for c in self.calls for t in c.results]
        return (*tensors, *self.profiles.values())


def read_result(stdout: str, exit_code: int, stderr: str = "") -> RunnerResult:
    """Understand what the runner printed, trusting none of it.

    Args:
        stdout: All of its standard output; text before and after the result is skipped.
        exit_code: Of the runner; 128 + n or -n for death by signal n.
        stderr: All of its standard error, for the message when there is no result.

    Raises:
        DeviceError: It failed, crashed, was killed, or printed no whole result.
    """
    text = _result_text(stdout, exit_code, stderr)
    blame = Blame(
        "the runner's result cannot be read",
        DeviceError,
        "Run it again; if it persists, assemble the bundle anew with"
        " `mobileinst device prepare --force`",
    )
    outcome = parse_json(text, _Outcome, blame)
    if not outcome.ok:
        error = outcome.error or _Error("unknown", "it failed without saying why")
        raise DeviceError(
            f"the runner says: {shown(error.message)}",
            _NEXT_STEPS.get(error.kind, "Report this: the kind of failure is unknown"),
        )
    blame = Blame("the runner's result is not understood", DeviceError, _NEXT_STEPS["library"])
    result = parse_json(text, _Document, blame).result()
    if exit_code != 0:
        raise DeviceError(
            f"the runner reported success but ended with {death(exit_code)}",
            "Run it again; if it persists, the device is not to be trusted",
        )
    return result


def read_tensors(result: RunnerResult, folder: Path) -> list[dict[str, np.ndarray]]:
    """Load the tensors that ``outputs`` wrote.

    Args:
        result: What the runner said.
        folder: A local copy of its output folder.

    Returns:
        One mapping from result name to array for each call, in order.

    Raises:
        DeviceError: A file is missing or differs from what the runner wrote.
    """
    loaded: list[dict[str, np.ndarray]] = []
    for call in result.calls:
        arrays: dict[str, np.ndarray] = {}
        for tensor in call.results:
            try:
                data = (folder / tensor.file).read_bytes()
            except OSError:
                data = b""
            if len(data) != tensor.bytes or f"{zlib.crc32(data):08x}" != tensor.crc32:
                raise DeviceError(
                    f"the tensor {tensor.name} did not arrive as the runner wrote it"
                    f" ({len(data)} of {tensor.bytes} bytes, or another CRC-32)",
                    "Run it again; if it persists, check the cable and the device's storage",
                )
            little = np.dtype(tensor.dtype).newbyteorder("<")
            arrays[tensor.name] = np.frombuffer(data, little).reshape(tensor.shape).copy()
        loaded.append(arrays)
    return loaded


class _Error(msgspec.Struct):
    """Why a runner failed."""

    kind: Word
    message: str


class _Outcome(msgspec.Struct):
    """What every result says first."""

    schema: Literal[1]
    ok: bool
    error: _Error | None = None


class _Runtime(msgspec.Struct):
    name: Word
    version: Word


class _Core(msgspec.Struct):
    affinity: tuple[Whole, ...]
    asked: Whole | None = None


class _Graph(msgspec.Struct):
    load_ms: Milliseconds


class _Document(msgspec.Struct):
    """The result that ``android_bench/README.md`` describes; other fields do not matter."""

    mode: Mode
    abi: Word
    runtime: _Runtime
    core: _Core
    graphs: dict[Role, _Graph]
    peak_memory_kib: Whole | None = None
    calls: tuple[CallResult, ...] = ()
    warmups: tuple[Sample, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    marks: tuple[Mark, ...] = ()
    profiles: dict[Role, FileName] = {}

    def result(self) -> RunnerResult:
        return RunnerResult(
            mode=self.mode,
            abi=self.abi,
            runtime=f"{self.runtime.name} {self.runtime.version}",
            core=self.core.asked,
            affinity=self.core.affinity,
            peak_memory_kib=self.peak_memory_kib,
            load_ms={role: graph.load_ms for role, graph in self.graphs.items()},
            calls=self.calls,
            warmups=self.warmups,
            schedules=self.schedules,
            marks=self.marks,
            profiles=self.profiles,
        )


def _result_text(stdout: str, exit_code: int, stderr: str) -> bytes:
    begin = stdout.rfind(BEGIN)
    end = END.search(stdout, begin) if begin >= 0 else None
    if begin < 0 or end is None:
        last = next((s for s in reversed((stderr or stdout).splitlines()) if s.strip()), "")
        half = "only half a result" if begin >= 0 else "no result"
        raise DeviceError(
            f"the runner printed {half} and ended with {death(exit_code)}"
            + (f"; its last words: {shown(last, 400)}" if last else ""),
            _after_death(exit_code),
        )
    text = stdout[begin + len(BEGIN) : end.start()].strip("\r\n").encode(errors="replace")
    if len(text) != int(end.group(1)):
        raise DeviceError(
            "the runner's result cannot be read: its length differs from what the end line says",
            "Run it again; if it persists, check the cable",
        )
    return text


def death(exit_code: int) -> str:
    """How a program ended, in words: its exit code, and the signal where it was one."""
    signal_number = -exit_code if exit_code < 0 else exit_code - 128
    names = {1: "hung up", 6: "aborted", 9: "killed", 11: "crashed", 13: "cut off", 15: "ended"}
    if 0 < signal_number < 65:
        return f"exit code {exit_code} ({names.get(signal_number, 'signal')}, {signal_number})"
    return f"exit code {exit_code}"


def _after_death(exit_code: int) -> str:
    if exit_code in (137, -9):
        return "The system may have run out of memory: close other apps or use a smaller model"
    if exit_code in (126, 127):
        return _NEXT_STEPS["library"]
    return (
        "Run it again; if it persists, verify the pair with `mobileinst verify DIR --device qemu`"
    )
