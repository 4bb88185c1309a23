"""One use of one phone: the bundle in place and checked, a run, its outputs, and nothing left over.

On the phone everything lies under ``/data/local/tmp/mobileinst``: one folder per content hash,
which stays for the next time, and one ``run-`` folder per session, which goes at its end.

The runner is started under a dead man's switch: a loop in the phone's shell reads the connection
and kills the runner when it closes. So nothing goes on running there, whether this program ends
well, is interrupted, is killed, or the cable is pulled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import filelock
import numpy as np
import platformdirs

from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.errors import DeviceError, OutputError
from mobileinst_deploy.core.places import at
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.phone.adb import require_one_version
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import OUTPUT_FOLDER, PLAN_FILE, Plan
from mobileinst_deploy.phone.result import RunnerResult, read_result, read_tensors
from mobileinst_deploy.phone.shell import AdbDevice, quote
from mobileinst_deploy.phone.state import check_abi, check_arithmetic, check_memory, read_phone
from mobileinst_deploy.phone.storage import (
    LINKED,
    REMOTE_ROOT,
    SHORT_LIMIT_S,
    RemoteFile,
    end_runners,
    install,
    last_line,
    linked,
    pair_files,
    refuse_links,
    refused,
)

#: What the host waits beyond the limit that the runner keeps itself.
_GRACE_S = 30.0
#: How the start of a runner ends where its folder is not.
_NO_FOLDER = 125
# In mksh, Android's shell: a background job reads /dev/null unless told otherwise, `read` is a
# builtin and so leaves no child behind, and descriptor 3 is not handed to programs.
_START = """\
rm -rf {old}
cd {work} || exit {no_folder}
exec 3<&0
{command} </dev/null &
runner=$!
echo $runner > ../pid
( while read -r line <&3; do :; done; kill -9 $runner ) >/dev/null 2>&1 </dev/null &
guard=$!
wait $runner
code=$?
kill -9 $guard
exit $code
"""
# Makes the session's folder, unless a runner is alive; then it prints that one's process id.
# A folder without one, and an hour old, was left when a phone or this program vanished.
_OPEN = f"""\
{refuse_links(REMOTE_ROOT)}
for file in {REMOTE_ROOT}/run-*/pid; do
  pid=
  [ -f "$file" ] && read -r pid < "$file"
  [ -n "$pid" ] && grep -q mobileinst_runner /proc/$pid/cmdline && echo "busy $pid" && exit 0
done 2>/dev/null
find {REMOTE_ROOT} -maxdepth 1 -name 'run-*' -mmin +60 -exec rm -rf {{}} + 2>/dev/null
mkdir -p {REMOTE_ROOT} && mktemp -d {REMOTE_ROOT}/run-XXXXXXXX
"""


@contextmanager
def phone_lock(serial: str) -> Iterator[None]:
    """Hold a phone against every other mobileinst of this user on this machine.

    What fails meanwhile and names no place of its own failed at this phone.

    Raises:
        DeviceError: Another one holds it.
    """
    # Hashed, because a serial may hold any character and any length.
    name = hashlib.sha256(serial.encode()).hexdigest()[:32]
    folder = Path(platformdirs.user_cache_dir("mobileinst")) / "locks"
    lock = filelock.FileLock(folder / f"{name}.lock", timeout=0)
    with at(f"adb:{serial}"):
        _take(lock, folder, serial)
        try:
            yield
        finally:
            lock.release()


def _take(lock: filelock.FileLock, folder: Path, serial: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise DeviceError(
            f"another mobileinst is using the phone {serial}",
            "Wait until it has finished: two measurements on one phone would both be wrong",
        ) from None
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder} cannot be written: {error.strerror}",
            "Free some space there, or set XDG_CACHE_HOME to another folder",
        ) from error


class Session:
    """A phone with the bundle and one pair of graphs in place, for any number of runs.

    Use it as a context manager; entering takes the phone's lock and pushes what is missing, leaving
    kills what still runs and removes the session's folder on the phone.

    Args:
        device: The phone.
        bundle: What runs there.
        graphs: What the runtime is given of each graph, by role: the file to name, then the others.
        progress: Told of the push and of the runner's own progress.

    Attributes:
        facts: What the phone is.
        state: How it was on entering.

    Raises:
        DeviceError: On entering: the phone is in use, 32-bit, full, read-only, short of memory, or
            went away.
    """

    facts: DeviceFacts
    state: DeviceState

    def __init__(
        self,
        device: AdbDevice,
        bundle: DeviceBundle,
        graphs: Mapping[Role, Sequence[Content]],
        progress: Progress = silent,
    ) -> None:
        self.device = device
        self._bundle = bundle
        self._graphs = graphs
        self._progress = progress
        self._lock = phone_lock(device.serial)
        self._run = ""
        self._turn = 0
        self._runtime = ""
        self._pair = ""

    def __enter__(self) -> Session:
        self._lock.__enter__()
        try:
            self._open()
            require_one_version()  # also where everything is there and nothing need be pushed
            self.facts, self.state = read_phone(self.device)
            check_abi(self.facts)
            check_arithmetic(self.facts, self._bundle.runtime)
            pair = pair_files([file for role in ROLES for file in self._graphs[role]])
            check_memory(self.facts, self.state, sum(f.bytes for f in pair))
            files = [
                RemoteFile(self._bundle.folder / f.name, f.sha256, f.bytes, f.executable)
                for f in self._bundle.files
            ]
            self._runtime = install(self.device, files, self._bundle.sha256, self._progress)
            digest = hashlib.sha256("".join(f.sha256 for f in pair).encode()).hexdigest()
            self._pair = install(self.device, pair, digest, self._progress)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # When the phone has gone, the dead man's switch has killed the runner there; a later
            # session removes the folder.
            if self._run:
                with suppress(DeviceError):
                    AdbDevice(self.device.serial).shell(
                        end_runners(self._run), limit_s=SHORT_LIMIT_S
                    )
        finally:
            self._lock.__exit__(None, None, None)

    def start(self, plan: Plan) -> RunnerResult:
        """Run a plan on the phone and read what the runner says.

        Raises:
            DeviceError: Anything went wrong there.
            CancelledError: Somebody asked to stop.
        """
        old, self._turn = f"{self._run}/{self._turn}", self._turn + 1
        work = f"{self._run}/{self._turn}"
        with scratch_folder() as folder:
            local = folder / str(self._turn)
            local.mkdir()
            graphs: dict[Role, str] = {r: f"{self._pair}/{self._graphs[r][0].name}" for r in ROLES}
            plan.write(local, self._bundle.library(self._runtime), graphs)
            self.device.push([local], self._run)
        command = self._bundle.command(self._runtime, f"{work}/{PLAN_FILE}")
        ended = self.device.shell(
            _START.format(
                old=quote(old), work=quote(work), command=quote(*command), no_folder=_NO_FOLDER
            ),
            limit_s=plan.limit_seconds + _GRACE_S,
            on_stderr=_runner_progress(self._progress),
        )
        if ended.exit_code == _NO_FOLDER and not ended.stdout.strip():
            raise DeviceError(
                f"what was pushed to the phone {self.device.serial} is gone: it was restarted or"
                " cleaned meanwhile",
                "Run this again, which pushes it anew",
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
        remote = [f"{self._run}/{self._turn}/{OUTPUT_FOLDER}/{name}" for name in result.files]
        size = sum(t.bytes for call in result.calls for t in call.results)
        self.device.pull(remote, folder, size)

    def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
        """Run a plan in the mode ``outputs`` and give every call's tensors by name."""
        result = self.start(plan)
        with scratch_folder() as folder:
            self.fetch(result, folder)
            return read_tensors(result, folder)

    def _open(self) -> None:
        """Make the session's folder on the phone."""
        said = self.device.shell(_OPEN, limit_s=SHORT_LIMIT_S)
        answer = said.stdout.strip()
        if answer.startswith("busy "):
            raise DeviceError(
                f"a runner of another session is at work on the phone {self.device.serial}"
                f" (process {last_line(answer).removeprefix('busy ')})",
                "Wait until it has finished, or end it with `mobileinst device clean`",
            )
        if said.exit_code == LINKED:
            raise linked(self.device.serial, said)
        if said.exit_code or not re.fullmatch(rf"{REMOTE_ROOT}/run-\w+", answer):
            raise refused(self.device.serial, said)
        self._run = answer


def _runner_progress(progress: Progress) -> Callable[[str], None]:
    """Pass on the runner's lines ``progress``, label, done and total; the rest is for messages."""

    def hear(line: str) -> None:
        number = r"(\d{1,12}(?:\.\d+)?)"
        found = re.fullmatch(rf"progress\t([^\t]{{1,80}})\t{number}\t{number}", line)
        if found:
            progress(found.group(1), float(found.group(2)), float(found.group(3)))

    return hear
