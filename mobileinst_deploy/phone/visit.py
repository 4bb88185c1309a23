"""One visit to one phone: files in place and checked, programs run, and nothing left over.

On the phone everything lies under ``/data/local/tmp/mobileinst``: one folder per content hash,
which stays for the next time, and one ``run-`` folder per visit, which goes at its end.

A program is started under a dead man's switch: a loop in the phone's shell reads the connection
and kills the program when it closes. So nothing goes on running there, whether this program ends
well, is interrupted, is killed, or the cable is pulled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import filelock
import platformdirs

from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.errors import DeviceError, OutputError
from mobileinst_deploy.core.places import at
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.phone.adb import require_one_version
from mobileinst_deploy.phone.shell import AdbDevice, ShellResult, quote
from mobileinst_deploy.phone.state import check_abi, check_memory, read_phone
from mobileinst_deploy.phone.storage import (
    LINKED,
    REMOTE_ROOT,
    RUNNER_MARK,
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

#: How the start of a program ends where its folder is not.
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
# Makes the visit's folder, unless a runner is alive; then it prints that one's process id.
# A folder without one, and an hour old, was left when a phone or this program vanished.
_OPEN = f"""\
{refuse_links(REMOTE_ROOT)}
for file in {REMOTE_ROOT}/run-*/pid; do
  pid=
  [ -f "$file" ] && read -r pid < "$file"
  [ -n "$pid" ] && grep -q {RUNNER_MARK} /proc/$pid/cmdline && echo "busy $pid" && exit 0
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


class Visit:
    """A phone with programs and models in place, for any number of runs.

    Use it as a context manager; entering takes the phone's lock and pushes what is missing, leaving
    kills what still runs and removes the visit's folder on the phone.

    Args:
        device: The phone.
        programs: What is started there and what that needs, all of one folder.
        digest: Hash over the programs; names their folder.
        models: What the programs read, all of one folder.
        progress: Told of the push.

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
        programs: Sequence[RemoteFile],
        digest: str,
        models: Sequence[Content],
        progress: Progress = silent,
    ) -> None:
        self.device = device
        self.progress = progress
        self._files = tuple(programs)
        self._digest = digest
        self._contents = tuple(models)
        self._lock = phone_lock(device.serial)
        self._turn = 0
        #: Folders on the phone: this visit's own, the programs', the models'.
        self.run_folder = self.programs = self.models = ""

    def __enter__(self) -> Self:
        self._lock.__enter__()
        try:
            self._open()
            require_one_version()  # also where everything is there and nothing need be pushed
            self.facts, self.state = read_phone(self.device)
            check_abi(self.facts)
            self.check(self.facts)
            models = pair_files(self._contents)
            check_memory(self.facts, self.state, sum(f.bytes for f in models))
            self.programs = install(self.device, self._files, self._digest, self.progress)
            digest = hashlib.sha256("".join(f.sha256 for f in models).encode()).hexdigest()
            self.models = install(self.device, models, digest, self.progress)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def check(self, facts: DeviceFacts) -> None:
        """Refuse a phone that cannot run the programs; nothing was pushed by then.

        Raises:
            DeviceError: It cannot.
        """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # When the phone has gone, the dead man's switch has killed what ran there; a later
            # visit removes the folder.
            if self.run_folder:
                with suppress(DeviceError):
                    AdbDevice(self.device.serial).shell(
                        end_runners(self.run_folder), limit_s=SHORT_LIMIT_S
                    )
        finally:
            self._lock.__exit__(None, None, None)

    @property
    def work(self) -> str:
        """Folder of the latest run on the phone."""
        return f"{self.run_folder}/{self._turn}"

    def next_turn(self) -> str:
        """Begin another run; gives the folder that it will work in, which need not be there yet."""
        self._turn += 1
        return self.work

    def launch(
        self,
        command: Sequence[str],
        limit_s: float,
        on_stderr: Callable[[str], None] | None = None,
    ) -> ShellResult:
        """Start a program in the folder of this run, which is there by now, and wait for its end.

        Args:
            command: The program's path, which has ``mobileinst_runner`` in it, or is run by one of
                the phone's own programs; and its words.
            limit_s: Wall clock.
            on_stderr: Given each line of standard error as it comes.

        Raises:
            DeviceError: It cannot be started, the phone went away, or the limit passed.
            CancelledError: Somebody asked to stop.
        """
        ended = self.device.shell(
            _START.format(
                old=quote(f"{self.run_folder}/{self._turn - 1}"),
                work=quote(self.work),
                command=quote(*command),
                no_folder=_NO_FOLDER,
            ),
            limit_s=limit_s,
            on_stderr=on_stderr,
        )
        if ended.exit_code == _NO_FOLDER and not ended.stdout.strip():
            raise DeviceError(
                f"what was pushed to the phone {self.device.serial} is gone: it was restarted or"
                " cleaned meanwhile",
                "Run this again, which pushes it anew",
            )
        return ended

    def _open(self) -> None:
        """Make the visit's folder on the phone."""
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
        self.run_folder = answer
