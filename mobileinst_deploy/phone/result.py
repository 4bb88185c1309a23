"""What the on-device runner says: its one JSON document and the tensors it wrote.

The format is described in ``android_bench/README.md``. Nothing here starts a process: the adb and
qemu adapters do, with the files that :meth:`mobileinst_deploy.phone.plan.Plan.write` leaves and
the streams that :func:`read_result` takes.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.phone.plan import Mode

DTYPES = ("float32", "uint8", "int32", "int64")
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
class Sample:
    """One timed run.

    Attributes:
        role: Which graph.
        clip: Index of the clip within its schedule.
        start_ms: When the run began, from the schedule's start.
        prepare_ms: Filling the input tensors, apart from the run.
        run_ms: Inference alone.
        cpu: The core it ended on, or None where the kernel does not say.
        khz: That core's clock just after the run, or None where it cannot be read.
    """

    role: Role
    clip: int
    start_ms: float
    prepare_ms: float
    run_ms: float
    cpu: int | None
    khz: int | None


@dataclass(frozen=True)
class ScheduleResult:
    """The interleaved schedule of one clip length.

    Attributes:
        clip_length: T; each clip is one keyframe and T-1 reuse frames.
        wall_ms: From the first run's start to the last run's end.
        samples: In the order they ran.
    """

    clip_length: int
    wall_ms: float
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class ResultTensor:
    """One tensor file that the runner wrote into its output folder."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    bytes: int
    crc32: str


@dataclass(frozen=True)
class CallResult:
    """One run outside a schedule."""

    role: Role
    prepare_ms: float
    run_ms: float
    results: tuple[ResultTensor, ...]


@dataclass(frozen=True)
class Mark:
    """The two marker values around one counted run."""

    call: int
    role: Role
    begin: int
    end: int


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
        schedules: One for each clip length of ``bench``.
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
    schedules: tuple[ScheduleResult, ...]
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
    document = _document(stdout, exit_code, stderr)
    try:
        if document["ok"] is False:
            error = _part(document, "error", dict)
            kind, message = _part(error, "kind", str), _part(error, "message", str)
            raise DeviceError(
                f"the runner says: {_printable(message)}",
                _NEXT_STEPS.get(kind, "Report this: the kind of failure is unknown"),
            )
        result = _result(document)
    except (_MalformedError, KeyError) as fault:
        raise DeviceError(
            f"the runner's result is not understood: {fault}", _NEXT_STEPS["library"]
        ) from None
    if exit_code != 0:
        raise DeviceError(
            f"the runner reported success but ended with {_death(exit_code)}",
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


class _MalformedError(Exception):
    """The result is JSON, but not the result that README.md describes."""


def _document(stdout: str, exit_code: int, stderr: str) -> dict[str, Any]:
    begin = stdout.rfind(BEGIN)
    end = END.search(stdout, begin) if begin >= 0 else None
    if begin < 0 or end is None:
        last = next((s for s in reversed((stderr or stdout).splitlines()) if s.strip()), "")
        half = "only half a result" if begin >= 0 else "no result"
        raise DeviceError(
            f"the runner printed {half} and ended with {_death(exit_code)}"
            + (f"; its last words: {_printable(last)}" if last else ""),
            _after_death(exit_code),
        )
    text = stdout[begin + len(BEGIN) : end.start()].strip("\r\n")
    try:
        if len(text.encode()) != int(end.group(1)):
            raise ValueError("its length differs from what the end line says")
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("schema") != 1:
            raise ValueError("it is not a document of schema 1")
        if not isinstance(document.get("ok"), bool):
            raise ValueError("it does not say whether it succeeded")
    except (ValueError, RecursionError) as fault:
        raise DeviceError(
            f"the runner's result cannot be read: {_printable(str(fault))}",
            "Run it again; if it persists, assemble the bundle anew with"
            " `mobileinst device prepare --force`",
        ) from None
    return document


def _death(exit_code: int) -> str:
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


def _result(document: dict[str, Any]) -> RunnerResult:
    mode = _part(document, "mode", str)
    if mode not in get_args(Mode):
        raise _MalformedError(f"unknown mode {mode!r}")
    core = _part(document, "core", dict)
    asked, peak = core.get("asked"), document.get("peak_memory_kib")
    affinity = tuple(_checked(v, int, "affinity") for v in _part(core, "affinity", list))
    graphs = _part(document, "graphs", dict)
    profiles = _part(document, "profiles", dict, {})
    return RunnerResult(
        mode=cast(Mode, mode),
        abi=_part(document, "abi", str),
        runtime=_runtime(_part(document, "runtime", dict)),
        core=None if asked is None else _checked(asked, int, "core"),
        affinity=affinity,
        peak_memory_kib=None if peak is None else _checked(peak, int, "peak_memory_kib"),
        load_ms={
            _role(k): _part(_checked(v, dict, k), "load_ms", float) for k, v in graphs.items()
        },
        calls=tuple(_call(c) for c in _each(document, "calls")),
        warmups=tuple(_sample(s) for s in _each(document, "warmups")),
        schedules=tuple(
            ScheduleResult(
                _part(s, "clip_length", int),
                _part(s, "wall_ms", float),
                tuple(_sample(v) for v in _each(s, "samples")),
            )
            for s in _each(document, "schedules")
        ),
        marks=tuple(
            Mark(
                _part(m, "call", int),
                _role(_part(m, "role", str)),
                _part(m, "begin", int),
                _part(m, "end", int),
            )
            for m in _each(document, "marks")
        ),
        profiles={_role(k): _file(v) for k, v in profiles.items()},
    )


def _runtime(data: dict[str, Any]) -> str:
    return f"{_part(data, 'name', str)} {_part(data, 'version', str)}"


def _sample(data: dict[str, Any]) -> Sample:
    cpu, khz = data.get("cpu"), data.get("khz")
    return Sample(
        _role(_part(data, "role", str)),
        _part(data, "clip", int),
        _part(data, "start_ms", float),
        _part(data, "prepare_ms", float),
        _part(data, "run_ms", float),
        None if cpu is None else _checked(cpu, int, "cpu"),
        None if khz is None else _checked(khz, int, "khz"),
    )


def _call(data: dict[str, Any]) -> CallResult:
    return CallResult(
        _role(_part(data, "role", str)),
        _part(data, "prepare_ms", float),
        _part(data, "run_ms", float),
        tuple(_tensor(t) for t in _each(data, "results")),
    )


def _tensor(data: dict[str, Any]) -> ResultTensor:
    dtype = _part(data, "dtype", str)
    shape = tuple(_checked(v, int, "shape") for v in _part(data, "shape", list))
    size = _part(data, "bytes", int)
    if dtype not in DTYPES or len(shape) > 8 or any(not 0 < v < 2**28 for v in shape):
        raise _MalformedError(f"a tensor is {dtype!r} {shape!r}")
    elements = 1
    for length in shape:
        elements *= length
    if size != elements * np.dtype(dtype).itemsize:
        raise _MalformedError(f"a tensor {dtype} {shape} has {size} bytes")
    return ResultTensor(
        _part(data, "name", str),
        dtype,
        shape,
        _file(data.get("file")),
        size,
        _part(data, "crc32", str),
    )


def _role(text: str) -> Role:
    if text not in ROLES:
        raise _MalformedError(f"unknown graph {text!r}")
    return text


def _file(name: object) -> str:
    # A name becomes a path on this machine, so a device must not be able to choose the folder.
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", name):
        raise _MalformedError(f"unusable file name {name!r}")
    return name


def _each(data: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    for item in _part(data, key, list, []):
        yield _checked(item, dict, key)


def _part(data: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    return _checked(data.get(key, default), kind, key)


def _checked(value: Any, kind: type, key: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if wrong or (kind in (int, float) and not 0 <= value < 2**53):
        raise _MalformedError(f"{key} is {_printable(repr(value))}")
    return value


def _printable(text: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= 400 else shown[:400] + "..."
