"""The plan: everything one start of the on-device runner is to do, as a flat text file.

The format is described in ``android_bench/README.md``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np

from mobileinst_deploy.core.contract import (
    IMAGE,
    KERNELS,
    ROLES,
    Call,
    GraphSpec,
    Role,
    TensorSpec,
    is_carried,
)
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.files import write_atomically

Mode = Literal["outputs", "bench", "profile", "count", "track"]

PLAN_FILE = "plan.txt"
OUTPUT_FOLDER = "out"


@dataclass(frozen=True)
class PlannedInput:
    """One input of a planned call.

    Attributes:
        spec: Name, dtype and concrete shape.
        source: The values, or ``@OUTPUT`` for that result of the latest frame call.
    """

    spec: TensorSpec
    source: np.ndarray | str = field(repr=False)


@dataclass(frozen=True)
class PlannedCall:
    """One run of one graph with everything it takes and must return.

    Attributes:
        role: Which graph.
        inputs: In graph order.
        results: In graph order, shapes concrete.
    """

    role: Role
    inputs: tuple[PlannedInput, ...]
    results: tuple[TensorSpec, ...]


def plan_call(spec: GraphSpec, arrays: Mapping[str, np.ndarray]) -> PlannedCall:
    """Fit inputs to a graph's signature; free axes take their lengths from the arrays.

    Raises:
        InputError: An input is missing, unknown, or does not fit.
    """
    spec.check_inputs(arrays)
    lengths = {
        axis: length
        for tensor in spec.inputs
        for axis, length in zip(tensor.shape, arrays[tensor.name].shape, strict=True)
        if isinstance(axis, str)
    }

    def concrete(tensor: TensorSpec) -> TensorSpec:
        shape = tuple(lengths[v] if isinstance(v, str) else v for v in tensor.shape)
        return TensorSpec(tensor.name, tensor.dtype, shape)

    return PlannedCall(
        spec.role,
        tuple(PlannedInput(concrete(t), arrays[t.name]) for t in spec.inputs),
        tuple(concrete(t) for t in spec.outputs),
    )


def plan_calls(specs: Mapping[Role, GraphSpec], calls: Sequence[Call]) -> tuple[PlannedCall, ...]:
    """Plan :class:`~mobileinst_deploy.core.contract.Call` records for the mode ``outputs``."""
    return tuple(plan_call(specs[c.role], c.inputs) for c in calls)


def reuse_pattern(
    specs: Mapping[Role, GraphSpec],
    images: Sequence[np.ndarray],
    kernels: np.ndarray | None = None,
) -> tuple[PlannedCall, ...]:
    """The keyframe and the reuse frame that ``bench``, ``profile`` and ``count`` repeat.

    Args:
        specs: Both graphs' signatures.
        images: One or two pictures, (1,3,H,W) float32, 0 to 255: the keyframe's and the reuse
            frame's.
        kernels: The live kernels (1,n,D) that every reuse frame is given. None means all N of the
            keyframe's own, handed over on the device as in real use. Context always is.

    Raises:
        InputError: A picture or the kernels do not fit the graphs.
    """
    frame = plan_call(specs["frame"], {IMAGE: images[0]})
    given = {IMAGE: images[-1]} if kernels is None else {IMAGE: images[-1], KERNELS: kernels}
    handed_over = {
        t.name: np.zeros(cast(tuple[int, ...], t.shape), t.dtype)
        for t in frame.results
        if is_carried(t.name) and t.name not in given
    }
    reuse = plan_call(specs["mask_head"], {**handed_over, **given})
    inputs = tuple(
        PlannedInput(i.spec, f"@{i.spec.name}") if i.spec.name in handed_over else i
        for i in reuse.inputs
    )
    return frame, PlannedCall("mask_head", inputs, reuse.results)


@dataclass(frozen=True)
class Plan:
    """What one start of the runner is to do.

    Attributes:
        mode: See ``android_bench/README.md``.
        calls: From :func:`plan_calls` for ``outputs``, else from :func:`reuse_pattern`.
        core: The one core to run on, or None to leave the affinity alone.
        warmups: Untimed runs of each graph before the first timed one.
        runs: Timed runs of each graph, at least.
        seconds: Wall clock of each T's schedule, at least.
        clip_lengths: Every T to measure in the mode ``bench``.
        limit_seconds: After so long the runner ends itself.
        pace: In the mode ``bench``: frames that arrive each second; None runs without pause.
    """

    mode: Mode
    calls: tuple[PlannedCall, ...]
    core: int | None = None
    warmups: int = 0
    runs: int = 1
    seconds: float = 0.0
    clip_lengths: tuple[int, ...] = (1,)
    limit_seconds: int = 600
    pace: float | None = None

    def write(self, folder: Path, library: str, graphs: Mapping[Role, str]) -> tuple[str, ...]:
        """Write ``plan.txt`` and its tensors into an existing folder.

        The runner will leave its files in the folder ``out`` beside the plan.

        Args:
            folder: Where to write, on this machine.
            library: Path of ``libonnxruntime.so`` where the runner will run.
            graphs: Path of each graph where the runner will run.

        Returns:
            The names of the files written, the plan last.

        Raises:
            OutputError: The folder cannot be written.
            DeviceError: A path or name holds a TAB or a line break.
        """
        lines: list[tuple[str, ...]] = [
            ("mobileinst-plan", "1"),
            ("mode", self.mode),
            ("library", library),
            ("folder", OUTPUT_FOLDER),
            ("core", "any" if self.core is None else str(self.core)),
            ("warmups", str(self.warmups)),
            ("runs", str(self.runs)),
            ("seconds", f"{self.seconds:g}"),
            ("clips", ",".join(map(str, self.clip_lengths))),
            ("limit", str(self.limit_seconds)),
        ]
        if self.pace is not None:
            lines.append(("pace", f"{self.pace:g}"))
        lines += [("graph", role, graphs[role]) for role in ROLES if role in self._roles()]
        files: dict[str, bytes] = {}
        for call in self.calls:
            lines.append(("call", call.role))
            for item in call.inputs:
                shape = ",".join(map(str, item.spec.shape))
                head = ("input", item.spec.name, item.spec.dtype, shape)
                if isinstance(item.source, str):
                    lines.append((*head, item.source))
                    continue
                stored = _smallest(item.source)
                data = stored.tobytes()
                crc = f"{zlib.crc32(data):08x}"
                name = f"in-{crc}-{len(data)}.bin"
                if files.setdefault(name, data) != data:  # two tensors with one CRC: keep both
                    name = f"in-{len(files)}-{crc}-{len(data)}.bin"
                    files[name] = data
                lines.append((*head, name, stored.dtype.name, crc))
            for tensor in call.results:
                shape = ",".join(map(str, tensor.shape))
                lines.append(("result", tensor.name, tensor.dtype, shape))
        lines += self._own(files)
        lines.append(("end",))
        for line in lines:
            if any(re.search(r"[\t\r\n\0]", text) or not text for text in line):
                raise DeviceError(
                    f"the plan line {line!r} holds an empty field, a TAB or a line break",
                    "Rename the file or folder",
                )
        text = "".join("\t".join(line) + "\n" for line in lines)
        files[PLAN_FILE] = text.encode()
        for name, data in files.items():
            write_atomically(folder / name, partial(_put, data))
        return tuple(files)

    def _roles(self) -> set[Role]:
        """The graphs that the plan names."""
        return {call.role for call in self.calls}

    def _own(self, files: dict[str, bytes]) -> list[tuple[str, ...]]:
        """Lines of one mode alone; what they name is put into ``files``."""
        return []


def _smallest(values: np.ndarray) -> np.ndarray:
    """Pictures are whole numbers from 0 to 255: pushed as bytes they are a quarter of the size."""
    if values.dtype == np.float32 and values.size:
        with np.errstate(invalid="ignore"):
            narrow = values.astype(np.uint8)
        if np.array_equal(narrow, values):
            return np.ascontiguousarray(narrow)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def _put(data: bytes, path: Path) -> None:
    path.write_bytes(data)
