"""One phone over adb: a shell and file transfer that cannot hang or lie.

The shell speaks to adb's server through adbutils in shell protocol 2, so that exit codes are real
and the two streams stay apart. Files go through the adb program that adbutils finds or carries: it
compresses, and it says in words what failed. Every call has a time limit, and every failure becomes
a :class:`~mobileinst_deploy.core.errors.DeviceError` that says what became of the phone.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mobileinst_deploy.core.errors import DeviceError, OutputError
from mobileinst_deploy.core.programs import run_program
from mobileinst_deploy.phone.adb import (
    CONNECT_LIMIT_S,
    adb_command,
    client,
    ensure_server,
    list_devices,
    require_one_version,
    talking,
    unusable,
)

SHELL_LIMIT_S = 30.0
#: A transfer may take so long however small it is, and longer at 2 Mbit/s, slower than any USB port
#: and than most wireless networks.
TRANSFER_LIMIT_S = 60.0
SLOWEST_BYTES_PER_S = 250_000
MOST_OUTPUT_BYTES = 64 << 20

_STDOUT, _STDERR, _EXIT = 1, 2, 3
#: Some phones' shells greet whoever starts them: what a command says comes after this line.
_ANSWER = "=====MOBILEINST-ANSWER====="
_TICK_S = 0.2


class CancelledError(Exception):
    """Somebody asked this phone's work to stop; not a failure of the phone."""


@dataclass(frozen=True)
class ShellResult:
    """What a command on the phone said.

    Attributes:
        stdout: Standard output of the command, without what the phone's shell says before; bytes
            that are no UTF-8 are replaced.
        stderr: Standard error, likewise.
        exit_code: The real one; 128 + n for death by signal n.
    """

    stdout: str
    stderr: str
    exit_code: int


class AdbDevice:
    """One phone: a shell and file transfer, each call with a time limit.

    Args:
        serial: As ``adb devices`` lists it.
        cancel: Set by somebody else to make every call raise :class:`CancelledError` soon.
    """

    def __init__(self, serial: str, cancel: threading.Event | None = None) -> None:
        self.serial = serial
        self.cancel = cancel or threading.Event()

    def shell(
        self,
        command: str,
        *,
        limit_s: float = SHELL_LIMIT_S,
        on_stderr: Callable[[str], None] | None = None,
    ) -> ShellResult:
        """Run a command in the phone's shell and wait for its end.

        When this returns or raises, the command's standard input is closed.

        Args:
            command: For the shell, quoted by the caller.
            limit_s: Wall clock.
            on_stderr: Given each line of standard error as it comes.

        Raises:
            DeviceError: The phone went away, or the limit passed.
            CancelledError: Somebody asked to stop.
        """
        deadline = time.monotonic() + limit_s
        streams = {_STDOUT: bytearray(), _STDERR: bytearray()}
        told = 0
        service = f"shell,v2,raw:echo {_ANSWER}\n{command}"
        with self._talking(), self._service(service, deadline) as receive:
            while True:
                header = receive(5)
                kind, size = header[0], int.from_bytes(header[1:], "little")
                data = receive(size)
                if kind == _EXIT and data:
                    break
                if kind not in streams:
                    continue
                streams[kind] += data
                if len(streams[kind]) > MOST_OUTPUT_BYTES:
                    raise DeviceError(
                        f"a command on {self.serial} printed more than"
                        f" {MOST_OUTPUT_BYTES >> 20} MB and was ended",
                        "Run it again; if it persists, the phone is not to be trusted",
                    )
                if on_stderr and kind == _STDERR:
                    *lines, _ = bytes(streams[_STDERR][told:]).split(b"\n")
                    for line in lines:
                        told += len(line) + 1
                        on_stderr(line.decode(errors="replace"))
        stdout, stderr = (s.decode(errors="replace") for s in streams.values())
        return ShellResult(stdout.partition(f"{_ANSWER}\n")[2], stderr, data[0])

    def push(self, files: Sequence[Path], remote: str) -> None:
        """Copy files or folders into an existing folder on the phone; check what arrived yourself.

        Raises:
            DeviceError: The phone went away, is full or refuses.
            CancelledError: Somebody asked to stop.
        """
        if files:
            size = sum(p.stat().st_size for f in files for p in (f, *f.rglob("*")))
            self._transfer(["push", "--", *map(str, files), f"{remote}/"], size)

    def pull(self, remote: Sequence[str], folder: Path, expected_bytes: int) -> None:
        """Copy files from the phone into an existing folder here.

        Args:
            remote: Absolute paths on the phone.
            folder: Where to put them, under their own names.
            expected_bytes: For the time limit.

        Raises:
            DeviceError: The phone went away or a file is missing.
            OutputError: The folder here is full.
            CancelledError: Somebody asked to stop.
        """
        for start in range(0, len(remote), 500):  # a command line has an end
            self._transfer(
                ["pull", "--", *remote[start : start + 500], str(folder)], expected_bytes
            )

    def _transfer(self, arguments: list[str], size: int) -> None:
        limit_s = TRANSFER_LIMIT_S + size / SLOWEST_BYTES_PER_S
        ensure_server()
        require_one_version()
        command = [*adb_command(), "-s", self.serial, *arguments]
        done = run_program(command, limit_s=limit_s, between=self._stop_if_asked)
        if done.code is None:
            raise DeviceError(
                f"adb {arguments[0]} of {size / 1e6:.1f} MB took longer than {limit_s:.0f} s on the"
                f" phone {self.serial} and was ended",
                "Use a faster cable, port or network, and see whether the phone still answers with"
                " `mobileinst doctor --device adb`",
            )
        if done.code:
            said = [s for s in (done.stdout + done.stderr).splitlines() if "error" in s]
            raise self._failed_transfer(arguments[0], said[-1] if said else "")

    def _failed_transfer(self, verb: str, said: str) -> DeviceError | OutputError:
        gone = self._what_became_of_it()
        if gone:
            return gone
        reason = said.rpartition(": ")[2].strip() or "adb does not say why"
        if verb == "pull" and ("cannot write" in said or "cannot create" in said):
            return OutputError(
                f"what the phone computed cannot be stored here: {reason}",
                "Free some space in the folder for temporary files, or set TMPDIR to another",
            )
        advice = {
            "No space left on device": "Free some space on the phone, or run `mobileinst device"
            " clean`",
            "Read-only file system": "Restart the phone; its /data must be writable",
        }
        way = "to" if verb == "push" else "from"
        return DeviceError(
            f"copying {way} the phone {self.serial} failed: {reason}",
            advice.get(reason, "Check the cable and the free space on the phone, then try again"),
        )

    @contextmanager
    def _service(self, service: str, deadline: float) -> Iterator[Callable[[int], bytes]]:
        """Open a service of the phone's adbd; yields ``receive(size)``, which reads just that."""
        ensure_server()
        limit_s = deadline - time.monotonic()
        connection = client().make_connection(timeout=min(CONNECT_LIMIT_S, limit_s))
        try:
            connection.send_command(f"host:tport:serial:{self.serial}")
            connection.check_okay()
            connection.read_exact(8)  # the transport's number
            connection.send_command(service)
            connection.check_okay()

            def receive(size: int) -> bytes:
                data = bytearray()
                connection.conn.settimeout(_TICK_S)
                while len(data) < size:
                    self._stop_if_asked()
                    try:
                        chunk = connection.conn.recv(min(size - len(data), 1 << 20))
                    except TimeoutError:
                        chunk = None
                    if chunk == b"":
                        raise EOFError
                    data += chunk or b""
                    if time.monotonic() > deadline:
                        raise self._late("a command", limit_s)
                return bytes(data)

            yield receive
        finally:
            connection.close()

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            with talking(f"the phone {self.serial}"):
                yield
        except DeviceError as error:
            if error.__cause__ is None:
                raise
            raise (self._what_became_of_it() or error) from error.__cause__

    def _what_became_of_it(self) -> DeviceError | None:
        """Why this phone no longer answers, or None if adb still lists it as usable."""
        try:
            if ensure_server():
                return DeviceError(
                    "adb's server was ended while it was in use",
                    "Let nothing else restart adb (Android Studio does), connect the phone again if"
                    " it is on TCP, then run this again",
                )
        except DeviceError as error:
            return error
        for _ in range(10):  # adb needs a moment to notice that a phone has left
            try:
                listed = {d.serial: d for d in list_devices()}
            except DeviceError as error:
                return error
            now = listed.get(self.serial)
            if now is None:
                return DeviceError(
                    f"the phone {self.serial} is gone", "Connect it again, then run this again"
                )
            if not now.usable:
                return unusable(now)
            if self.cancel.wait(0.05):
                break
        return None

    def _late(self, what: str, limit_s: float) -> DeviceError:
        return DeviceError(
            f"{what} on the phone {self.serial} took longer than {limit_s:.0f} s and was ended",
            "See whether the phone still answers with `mobileinst doctor --device adb`",
        )

    def _stop_if_asked(self) -> None:
        if self.cancel.is_set():
            raise CancelledError


def quote(*words: str) -> str:
    """Words as one line for the phone's shell, each taken literally."""
    return " ".join(map(shlex.quote, words))
