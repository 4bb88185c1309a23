"""What a process owes to the system: streams that are there, and an orderly end at a signal.

Nothing heavy is imported here: this runs first, and a signal may come at any moment after.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import time
from types import FrameType
from typing import IO, NoReturn

from mobileinst_deploy.core.interrupt import Ended

#: Python's own functions that start a process, by file and name.
_FORKING = {("popen_fork.py", "_launch"), ("subprocess.py", "_execute_child")}
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
#: Within so many seconds of the first signal more of them change nothing: the process is cleaning
#: up. After that, whoever still waits means it.
_PATIENCE_S = 2.0
#: How often it is asked whether such a moment is over.
_RETRY_S = 0.02
NOTHING_LEFT = "Interrupted; nothing half written was left behind."


class _State:
    """Where the process stands."""

    process = 0
    working = False
    done = False
    ending_since: float | None = None
    pending = 0


def begin() -> None:
    """Make the three standard streams usable, and let signals end the process in order."""
    _open_streams()
    _State.process = os.getpid()
    for number in [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]:
        # nohup and shells in the background ignore some; so it stays.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda _, frame: _on_signal(_State.pending, frame))


def working() -> None:
    """From here on there is something to clean up when a signal comes."""
    _State.working = True


def leave(code: int) -> NoReturn:
    """End the process with that code, whatever signal still comes.

    Python's own way out gives the signals back their default while it takes everything down, and a
    signal in that moment would change the exit code.
    """
    _State.done = True
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def silence(stream: IO[str]) -> None:
    """Let a stream that nobody reads any more lead to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def unread(stream: IO[str]) -> bool:
    """Whether a stream leads into a pipe whose reader is gone."""
    ready = select.poll()
    try:
        ready.register(stream.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & select.POLLERR for _, event in ready.poll(0))


def _open_streams() -> None:
    """A closed one leads to nowhere: else the next file that is opened would become it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be no text at all, and a terminal may know few letters.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _on_signal(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:
        return  # a forked child, which its parent ends
    now = time.monotonic()
    if _State.done:
        os._exit(128 + number)
    if _State.ending_since is not None and now - _State.ending_since < _PATIENCE_S:
        return
    if not _State.working:
        _end_at_once(number)
    if _indivisible(frame):
        _State.pending = number
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        return
    _State.ending_since = now
    raise Ended(number)


def _indivisible(frame: FrameType | None) -> bool:
    """Whether an exception here would be lost or do harm.

    In the middle of an import it leaves native modules half made, and some turn it into another
    one. In what Python itself does around a fork it is printed and forgotten.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib"):
            return True
        if (code.co_filename.rpartition(os.sep)[2], code.co_name) in _FORKING:
            return True
        frame = frame.f_back
    return False


def _end_at_once(number: int) -> NoReturn:
    """There is nothing to clean up yet."""
    code = 128 + number
    try:
        os.write(2, f"{NOTHING_LEFT}\n".encode())
        if "--json" in sys.argv:
            told = '{"cause": "interrupted", "next_step": "Run it again", "exit_code": %d'
            os.write(1, ('{"error": ' + told % code + ', "where": null}}\n').encode())
    except OSError:
        pass
    os._exit(code)
