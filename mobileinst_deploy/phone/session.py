"""The runner on a phone: the bundle and one pair of graphs in place, plans run, results read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.measure.device import DeviceFacts
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import OUTPUT_FOLDER, PLAN_FILE, Plan
from mobileinst_deploy.phone.result import RunnerResult, read_result, read_tensors
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import check_arithmetic
from mobileinst_deploy.phone.storage import RemoteFile, last_line
from mobileinst_deploy.phone.visit import Visit

#: What the host waits beyond the limit that the runner keeps itself.
_GRACE_S = 30.0


class Session(Visit):
    """A phone with the bundle and one pair of graphs in place, for any number of runs.

    Use it as a context manager; see :class:`~mobileinst_deploy.phone.visit.Visit`.

    Args:
        device: The phone.
        bundle: What runs there.
        graphs: What the runtime is given of each graph, by role: the file to name, then the others.
        progress: Told of the push and of the runner's own progress.

    Raises:
        DeviceError: On entering: the phone is in use, 32-bit, full, read-only, short of memory,
            lacks the arithmetic, or went away.
    """

    def __init__(
        self,
        device: AdbDevice,
        bundle: DeviceBundle,
        graphs: Mapping[Role, Sequence[Content]],
        progress: Progress = silent,
    ) -> None:
        files = [
            RemoteFile(bundle.folder / f.name, f.sha256, f.bytes, f.executable)
            for f in bundle.files
        ]
        models = [file for role in ROLES for file in graphs[role]]
        super().__init__(device, files, bundle.sha256, models, progress)
        self._bundle = bundle
        self._graphs = graphs

    def check(self, facts: DeviceFacts) -> None:
        """Refuse a phone without the arithmetic that the runtime needs.

        Raises:
            DeviceError: It has none.
        """
        check_arithmetic(facts, self._bundle.runtime)

    def start(self, plan: Plan) -> RunnerResult:
        """Run a plan on the phone and read what the runner says.

        Raises:
            DeviceError: Anything went wrong there.
            CancelledError: Somebody asked to stop.
        """
        work = self.next_turn()
        with scratch_folder() as folder:
            local = folder / Path(work).name
            local.mkdir()
            graphs: dict[Role, str] = {r: f"{self.models}/{self._graphs[r][0].name}" for r in ROLES}
            plan.write(local, self._bundle.library(self.programs), graphs)
            self.device.push([local], self.run_folder)
        ended = self.launch(
            self._bundle.command(self.programs, f"{work}/{PLAN_FILE}"),
            plan.limit_seconds + _GRACE_S,
            _runner_progress(self.progress),
        )
        if ended.exit_code in (126, 127) and not ended.stdout.strip():
            raise DeviceError(
                f"the runner does not start on {self.device.serial}: "
                f"{last_line(ended.stderr) or f'exit code {ended.exit_code}'}",
                "Run `mobileinst device clean` and try again; this phone may forbid programs in"
                " /data/local/tmp",
            )
        return read_result(ended.stdout, ended.exit_code, ended.stderr.rstrip())

    def fetch(self, result: RunnerResult, folder: Path) -> None:
        """Copy the files that the runner names into a folder here.

        Raises:
            DeviceError: The phone went away or a file is missing.
            OutputError: There is no space here.
        """
        remote = [f"{self.work}/{OUTPUT_FOLDER}/{name}" for name in result.files]
        size = sum(t.bytes for call in result.calls for t in call.results)
        self.device.pull(remote, folder, size)

    def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
        """Run a plan in the mode ``outputs`` and give every call's tensors by name."""
        result = self.start(plan)
        with scratch_folder() as folder:
            self.fetch(result, folder)
            return read_tensors(result, folder)


def _runner_progress(progress: Progress) -> Callable[[str], None]:
    """Pass on the runner's lines ``progress``, label, done and total; the rest is for messages."""

    def hear(line: str) -> None:
        number = r"(\d{1,12}(?:\.\d+)?)"
        found = re.fullmatch(rf"progress\t([^\t]{{1,80}})\t{number}\t{number}", line)
        if found:
            progress(found.group(1), float(found.group(2)), float(found.group(3)))

    return hear
