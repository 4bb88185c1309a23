"""Other programs of this machine: run to their end, within a time, with what they said."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobileinst_deploy.core.interrupt import dies_with_its_parent

#: How often somebody who waits is asked whether to go on, seconds.
_TICK_S = 0.2


@dataclass(frozen=True)
class Ended:
    """What became of a program.

    Attributes:
        code: Its exit code, negative for a signal; None where it did not come to its end.
        stdout: What it printed, bytes that are no UTF-8 replaced.
        stderr: Likewise.
        fault: Why it did not come to its end, as what one can say of it, such as ``does not start:
            No such file or directory`` or ``did not end within 60 s``; None where it did.
        started: Whether it ran at all.
    """

    code: int | None
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)
    fault: str | None = None
    started: bool = True


def run_program(
    command: Sequence[str],
    *,
    limit_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    between: Callable[[], None] | None = None,
) -> Ended:
    """Run a program that reads nothing, and wait for its end.

    Whatever ends the wait, an exception of ``between`` or Ctrl-C, the program has ended with it; so
    it has when this process is killed.

    Args:
        command: The program and its arguments.
        limit_s: Seconds after which it is killed.
        cwd: Where it runs.
        env: Its whole environment; None hands on this program's.
        between: Called several times a second while it runs; may raise to end the wait. The program
            then has a session of its own: a Ctrl-C reaches this one alone, which ends the other in
            good order.
    """
    deadline = time.monotonic() + limit_s
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=cwd,
            env=env,
            start_new_session=between is not None,
            preexec_fn=dies_with_its_parent(),
        )
    except OSError as error:
        return Ended(None, fault=f"does not start: {error.strerror}", started=False)
    with process:
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return Ended(None, fault=f"did not end within {limit_s:g} s")
                if between is not None:
                    between()
                try:
                    wait = min(left, _TICK_S) if between is not None else left
                    stdout, stderr = process.communicate(timeout=wait)
                except subprocess.TimeoutExpired:
                    continue
                return Ended(process.returncode, stdout, stderr)
        finally:
            process.kill()
