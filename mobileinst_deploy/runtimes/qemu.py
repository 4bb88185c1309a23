"""The device bundle without a phone: the same ARM binaries under qemu's user emulation.

Outputs computed here are those of the ARM build and decide parity in CI. Times are qemu's own and
are never shown as latencies; what is exact is the number of executed ARM instructions.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.programs import run_program
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.measure.instructions import Kinds
from mobileinst_deploy.phone.counter import (
    Counter,
    Instructions,
    agreed,
    build_counter,
    read_counts,
)
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import OUTPUT_FOLDER, PLAN_FILE, Plan, PlannedCall, reuse_pattern
from mobileinst_deploy.phone.result import RunnerResult, read_result, read_tensors
from mobileinst_deploy.phone.toolchain import Need
from mobileinst_deploy.runtimes.device import DeviceRunner

#: qemu's `max` emulates SME and is nine times slower; the A76 is what a 778G's big cores are near.
CPU = "cortex-a76"

_NAMES = ("qemu-aarch64", "qemu-aarch64-static")
_INSTALL = "Run `sudo apt-get install qemu-user`"
_CORES = 8
_LONGEST = 86400  # s, the most that a plan may say
_GRACE = 60.0  # seconds that qemu may take beyond the limit that the runner keeps itself
# qemu 7.2 shows a program the host's own /proc/cpuinfo, and ONNX Runtime's CPU detection crashes
# over it; later ones make up an ARM one themselves. This describes a Cortex-A76 as Linux would.
_CPUINFO = """\
processor\t: {core}
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def needs() -> tuple[Need, ...]:
    """What this module needs, for ``mobileinst doctor``."""
    return (Need("qemu for aarch64", next(_found(_NAMES), None), _INSTALL.split("`")[1]),)


class QemuRunner(DeviceRunner):
    """The pair under qemu.

    Args:
        bundle: The pair, as the bundle's runtime takes it.
        device_bundle: From :func:`mobileinst_deploy.phone.device_bundle.prepare_bundle`.
        limit_seconds: Wall clock for one start; qemu takes about 8 s for a GMAC, so that the
            largest model of the zoo takes minutes for a picture.

    Raises:
        DeviceError: qemu is not installed.
    """

    name = "qemu"
    emulated = True

    def __init__(
        self, bundle: ExportBundle, device_bundle: DeviceBundle, limit_seconds: int = 21600
    ) -> None:
        super().__init__(bundle, device_bundle, limit_seconds)
        self.qemu = find_qemu()

    def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
        """Run a plan and give every call's tensors by name.

        Raises:
            DeviceError: Anything went wrong there.
        """
        with self._start(plan) as (result, folder):
            return read_tensors(result, folder)

    def count_instructions(
        self,
        image: np.ndarray,
        kernels: np.ndarray | None = None,
        *,
        warmups: int = 2,
        repeats: int = 2,
    ) -> dict[Role, Instructions]:
        """Count the ARM instructions that one run of each graph executes.

        A run differs a little from the one before it while memory is still being taken, so the run
        after the warm-ups is counted; that same run must give the same count, to the digit, each
        time the runner is started.

        Args:
            image: (1,3,H,W) float32, RGB, 0 to 255.
            kernels: Live kernels (1,n,D) for the mask-head graph; None means the frame's own.
            warmups: Uncounted runs of each graph before.
            repeats: How often the runner is started.

        Raises:
            DeviceError: This qemu takes no plugins, a compiler is missing, or the run failed.
            MeasurementInvalid: Two starts gave different counts.
        """
        return self.count_calls(
            reuse_pattern(self.specs, [image], kernels), warmups=warmups, repeats=repeats
        )

    def count_calls(
        self, calls: tuple[PlannedCall, ...], *, warmups: int = 2, repeats: int = 2
    ) -> dict[Role, Instructions]:
        """Count the instructions of planned calls, one for each graph; see above."""
        # Every plan of a pair has the same length: its text lies in memory too, and moves the rest.
        plan = Plan("count", calls, warmups=warmups, runs=1, limit_seconds=_LONGEST)
        counter = build_counter(self.device_bundle.folder.parent)
        logs: list[dict[Role, Kinds]] = []
        for _ in range(repeats):
            with scratch_folder() as scratch:
                log = scratch / "count"
                if "," in f"{counter.plugin}{log}":
                    raise DeviceError(
                        f"{counter.plugin} or {log} has a comma in its path: qemu cannot take it",
                        "Set XDG_CACHE_HOME and TMPDIR to folders without one",
                    )
                with self._start(plan, counter, log) as (result, _):
                    logs.append(read_counts(log, result))
        return agreed(logs)

    @contextmanager
    def _start(
        self, plan: Plan, counter: Counter | None = None, log: Path | None = None
    ) -> Iterator[tuple[RunnerResult, Path]]:
        """Run a plan and yield what it said and its output folder, which then is removed."""
        # The program sees only relative paths of fixed names: a path's length moves what lies in
        # memory, and a count shall be the same on every machine.
        with scratch_folder() as folder:
            links = {"bundle": self.device_bundle.folder}
            for role, graph in self.bundle.graphs.items():
                for file in graph.files:
                    file.write(folder, f"{role}{file.path.suffix}")
            command = [self.qemu, "-L", str(_sysroot(folder)), "-cpu", CPU, "-seed", "1"]
            preload = None
            if counter is not None:
                command += ["-plugin", f"{counter.plugin},out={log},kinds=on"]
                if self.device_bundle.runtime == "onnxruntime":  # ncnn asks for no time
                    links["clock.so"] = counter.still_clock
                    preload = "./clock.so"
            for link, target in links.items():
                (folder / link).symlink_to(target.resolve())
            graphs = {r: f"{r}{graph.path.suffix}" for r, graph in self.bundle.graphs.items()}
            plan.write(folder, self.device_bundle.library("bundle"), graphs)
            command += self.device_bundle.command("./bundle", f"./{PLAN_FILE}", preload=preload)
            result = _run(command, folder, self.limit_seconds + _GRACE)
            if result.runtime != self.runtime:
                raise DeviceError(
                    f"the runner ran {result.runtime} instead of {self.runtime}",
                    "Run `mobileinst device prepare --force`",
                )
            yield result, folder / OUTPUT_FOLDER


def find_qemu() -> str:
    """The path of qemu's aarch64 user emulator, the dynamic one first: only it takes plugins.

    Raises:
        DeviceError: Neither is installed.
    """
    found = next(_found(_NAMES), None)
    if found is None:
        raise DeviceError("qemu for aarch64 programs is not installed", _INSTALL)
    return found


def _found(names: tuple[str, ...]) -> Iterator[str]:
    return (path for path in map(shutil.which, names) if path)


def _sysroot(folder: Path) -> Path:
    root = folder / "sysroot"
    (root / "proc").mkdir(parents=True)
    text = "".join(_CPUINFO.format(core=core) for core in range(_CORES))
    (root / "proc" / "cpuinfo").write_text(text)
    return root


def _run(command: list[str], folder: Path, timeout: float) -> RunnerResult:
    # An empty environment: its size moves the stack, and the program needs nothing of it.
    done = run_program(command, limit_s=timeout, cwd=folder, env={"LC_ALL": "C"})
    if done.code is None:
        mend = "Use a smaller model, or a faster machine" if done.started else _INSTALL
        raise DeviceError(f"qemu {done.fault}", mend)
    if re.search(r"plugin|unrecognized option|unknown option", done.stderr) and not done.stdout:
        raise DeviceError(
            f"this qemu does not take the instruction counter: {done.stderr.strip()[:200]}",
            "Use the dynamic qemu-user of Debian 12 (7.2), or another from 6.0 to 8.1",
        )
    return read_result(done.stdout, done.code, done.stderr)
