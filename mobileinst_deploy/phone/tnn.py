"""TNN's own test program on a phone: the user's build of it, and a pair that the user converted.

The paper measured with TNN. Its sources hold a program, ``TNNTest``, that times a model; neither it
nor TNN's converter is part of this project. What is known of both here is what TNN's sources say
(version 0.3: ``test/flags.cc``, ``test/timer.cc``, ``interpreter/tnn``). The user's files and the
program's words are a stranger's: nothing of them is believed beyond its form.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobileinst_deploy.core.content import Content, read_content
from mobileinst_deploy.core.contract import KERNELS, GraphSpec, Role
from mobileinst_deploy.core.errors import DeviceError, InputError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.text import shape_text, shown, whole
from mobileinst_deploy.measure.tnn import TnnPrecision, TnnTimes
from mobileinst_deploy.phone.result import death
from mobileinst_deploy.phone.shell import AdbDevice, ShellResult, quote
from mobileinst_deploy.phone.storage import RUNNER_MARK, SHORT_LIMIT_S, RemoteFile, last_line
from mobileinst_deploy.phone.toolchain import is_aarch64
from mobileinst_deploy.phone.visit import Visit

#: The program as TNN's build names it.
PROGRAM = "TNNTest"
#: Its name on the phone, by which whatever ends runners finds it.
_STARTED_AS = f"{RUNNER_MARK}_tnn"
#: How TNN numbers the two forms of a ``.tnnproto``; in the first an input's rank is not told, in
#: the second it is, and the line ends in its type.
_RANK_UNTOLD, _RANK_TOLD = "4206624770", "4206624772"
_LONGEST_AXIS = 1 << 28
#: A time in TNN's words, ``%6.3f``.
_MS = r"\s*(\d{1,12}\.\d{3})\s*ms"
#: The mean is of 32-bit sums: it may lie so much outside of the smallest and largest, as a share.
_ROUNDING = 1e-3
_BUILD_AGAIN = "Build TNN with -DTNN_TEST_ENABLE=ON -DTNN_ARM_ENABLE=ON for Android's arm64-v8a"
_CONVERT_AGAIN = "Convert this pair's own ONNX files with TNN's converter"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TnnModel:
    """A graph as TNN takes it.

    Attributes:
        proto: The layers, ``ROLE.tnnproto``.
        weights: Beside it, ``ROLE.tnnmodel``.
        inputs: The shape of each input by name, as the proto tells it.
    """

    proto: Content
    weights: Content
    inputs: Mapping[str, Shape]


@dataclass(frozen=True)
class TnnFolder:
    """What the user gave, as it was read and checked.

    Attributes:
        program: ``TNNTest`` for aarch64.
        libraries: Every ``.so`` file that lay beside it.
        models: By role.
    """

    program: Content
    libraries: tuple[Content, ...]
    models: Mapping[Role, TnnModel]

    @property
    def sha256(self) -> str:
        """Over the program and its libraries, 64 hex digits."""
        lines = "".join(f"{f.sha256} {f.name}\n" for f in (self.program, *self.libraries))
        return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()

    @property
    def live_kernels(self) -> int | None:
        """How many kernels the converted mask-head graph takes; None without one."""
        head = self.models.get("mask_head")
        return None if head is None else head.inputs[KERNELS][1]


@places(0)
def read_tnn_folder(folder: Path, specs: Mapping[Role, GraphSpec]) -> TnnFolder:
    """Read a folder with TNN's test program and a pair that was converted for it.

    It holds ``TNNTest`` and the ``.so`` files that it needs, and of each graph ``ROLE.tnnproto``
    and ``ROLE.tnnmodel``.

    Args:
        folder: The user's.
        specs: The signatures of the graphs that shall be measured; the converted ones must take
            inputs of the same names and shapes.

    Raises:
        InputError: Something is missing, not for aarch64, or of another pair.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder", f"Give a folder with {PROGRAM} and the converted pair"
        )
    program = _program(folder / PROGRAM)
    try:
        beside = sorted(p for p in folder.iterdir() if p.name.endswith(".so"))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read: {error.strerror}", "Check the path and its permissions"
        ) from None
    models = {role: _model(folder, role, spec) for role, spec in specs.items()}
    return TnnFolder(program, tuple(map(_program, beside)), models)


def _program(path: Path) -> Content:
    if not path.exists():
        raise InputError(f"{path} does not exist", _BUILD_AGAIN)
    content = read_content(path)
    if not is_aarch64(content.data):
        raise InputError(f"{path} is no program or library for aarch64", _BUILD_AGAIN)
    return content


def _model(folder: Path, role: Role, spec: GraphSpec) -> TnnModel:
    files = [folder / f"{role}.{ending}" for ending in ("tnnproto", "tnnmodel")]
    for path in files:
        if not path.exists():
            raise InputError(f"{path} does not exist", _CONVERT_AGAIN)
    proto, weights = map(read_content, files)
    inputs = proto_inputs(proto)
    wanted = {tensor.name: tensor.shape for tensor in spec.inputs}
    if not _fit(wanted, inputs):
        raise InputError(
            f"{proto} takes {_signature(inputs)}, and this pair's {role} graph"
            f" {_signature(wanted)}",
            _CONVERT_AGAIN,
        )
    return TnnModel(proto, weights, {name: inputs[name] for name in wanted})


def proto_inputs(proto: Content) -> dict[str, Shape]:
    """The inputs that a ``.tnnproto`` declares: name to shape.

    Raises:
        InputError: It does not begin as one does.
    """
    # The inputs are in the second field; TNN looks at neither quotes nor line ends.
    begin = proto.data[:65536].decode(errors="replace")
    fields = begin.replace('"', "").replace("\n", "").split(",", 2)
    head = fields[0].split()
    if len(fields) < 3 or len(head) < 4 or head[3] not in (_RANK_UNTOLD, _RANK_TOLD):
        raise InputError(f"{proto} does not begin as a .tnnproto does", _CONVERT_AGAIN)
    found: dict[str, Shape] = {}
    for entry in fields[1].split(":"):
        name, *numbers = entry.split() or [""]
        if head[3] == _RANK_TOLD:
            rank = whole(numbers[0], 1, 8) if numbers else None
            numbers = numbers[1 : 1 + rank] if rank and len(numbers) == rank + 2 else []
        shape = [whole(number, 1, _LONGEST_AXIS) for number in numbers]
        known = tuple(axis for axis in shape if axis is not None)
        if not name or not known or len(known) < len(shape) or name in found:
            raise InputError(
                f"{proto} tells no shape of the input {shown(entry.strip(), 80)!r}", _CONVERT_AGAIN
            )
        found[name] = known
    return found


def _fit(wanted: Mapping[str, tuple[int | str, ...]], given: Mapping[str, Shape]) -> bool:
    """Whether inputs are those of a graph; TNN may add axes of 1 behind, and fixes free ones."""
    if wanted.keys() != given.keys():
        return False
    for name, shape in wanted.items():
        mine, more = given[name][: len(shape)], given[name][len(shape) :]
        if len(mine) < len(shape) or any(axis != 1 for axis in more):
            return False
        if any(isinstance(a, int) and a != b for a, b in zip(shape, mine, strict=True)):
            return False
    return True


def _signature(inputs: Mapping[str, tuple[int | str, ...]]) -> str:
    return ", ".join(f"{name} {shape_text(shape)}" for name, shape in sorted(inputs.items()))


class TnnVisit(Visit):
    """A phone with the user's program and models in place.

    Args:
        device: The phone.
        folder: What is pushed.
        progress: Told of the push.

    Raises:
        DeviceError: On entering: as for :class:`~mobileinst_deploy.phone.visit.Visit`.
    """

    def __init__(self, device: AdbDevice, folder: TnnFolder, progress: Progress = silent) -> None:
        started = Content(folder.program.path.with_name(_STARTED_AS), folder.program.data)
        files = [
            RemoteFile(c.path, c.sha256, c.bytes, c is started, content=c)
            for c in (started, *folder.libraries)
        ]
        models = [c for m in folder.models.values() for c in (m.proto, m.weights)]
        super().__init__(device, files, folder.sha256, models, progress)
        self._folder = folder

    def time(
        self,
        role: Role,
        precision: TnnPrecision,
        *,
        core: int,
        warmups: int,
        runs: int,
        limit_s: float,
    ) -> TnnTimes:
        """Let TNN time one graph on one core, with one thread and inputs of TNN's own making.

        Args:
            role: Which graph.
            precision: ``HIGH``, which is float32, or ``AUTO``, TNN's default.
            core: Its number.
            warmups: Untimed runs first.
            runs: Timed runs.
            limit_s: Wall clock; a program that hangs is killed then.

        Raises:
            DeviceError: It does not start, fails, hangs, or says nothing that can be understood.
            CancelledError: Somebody asked to stop.
        """
        model = self._folder.models[role].proto.name
        # A folder that is gone with all the rest is told by what follows.
        self.device.shell(f"mkdir {quote(self.next_turn())}", limit_s=SHORT_LIMIT_S)
        said = self.launch(
            # The phone's own `taskset` fails where the kernel refuses; TNN's -dl would not say so.
            [
                *("taskset", f"{1 << core:x}", "env", f"LD_LIBRARY_PATH={self.programs}"),
                *(f"{self.programs}/{_STARTED_AS}", "-mp", f"{self.models}/{model}"),
                *("-dt", "ARM", "-pr", precision, "-th", "1", "-it", "0"),
                *("-wc", str(warmups), "-ic", str(runs)),
            ],
            limit_s,
        )
        low, mean, high = read_times(said, model)
        return TnnTimes(role, precision, runs, low, mean, high)


def read_times(said: ShellResult, model: str) -> tuple[float, float, float]:
    """The smallest, mean and largest time that TNN's test program told of a model, ms.

    Args:
        said: All that it printed.
        model: The name of its ``.tnnproto``.

    Raises:
        DeviceError: It failed, or told no time, or one that cannot be.
    """
    line = rf"{re.escape(model)} - ARM\s+TNN Benchmark time cost: min ={_MS}\s+\|"
    told = re.findall(rf"{line}\s+max ={_MS}\s+\|\s+avg ={_MS}", said.stdout)
    if said.exit_code or not told:
        words = (last_line(said.stderr) or last_line(said.stdout)).strip()
        raise DeviceError(
            f"TNN's test program told no time of {model}"
            f" and ended with {death(said.exit_code)}" + (f": {words}" if words else ""),
            _mend(said),
        )
    low, high, mean = map(float, told[-1])
    if len(told) > 1 or not (0 < low <= high and _between(low, mean, high)):
        raise DeviceError(
            f"TNN's test program told times of {model} that cannot be: "
            + "; ".join(f"min {a}, max {b}, avg {c} ms" for a, b, c in told[:3]),
            "Give TNN's own test program, unchanged",
        )
    return low, mean, high


def _between(low: float, mean: float, high: float) -> bool:
    return math.isfinite(mean) and (1 - _ROUNDING) * low <= mean <= (1 + _ROUNDING) * high


def _mend(said: ShellResult) -> str:
    words = said.stderr
    if "taskset" in words:
        return "Choose another core with --core; the phone must be Android 8 or later"
    if said.exit_code in (126, 127) or "CANNOT LINK" in words:
        return f"{_BUILD_AGAIN}, and put every .so file that it needs beside it"
    if said.exit_code == 137:
        return "The system may have run out of memory: close other apps or use a smaller model"
    return (
        "Start it by hand as TNN describes; a graph with an operator that TNN lacks cannot be timed"
        " by it"
    )
