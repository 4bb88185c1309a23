"""The end of a process by a signal: an exception that cleans up on its way; and its children."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Ended(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP came.

    It is a KeyboardInterrupt, so that whatever leaves things in order at Ctrl-C does so at every
    signal. What was kept of the work is said in its notes (``add_note``), a sentence each.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell calls the end by that signal."""
        return 128 + self.number


def dies_with_its_parent() -> Callable[[], None] | None:
    """For a child's ``preexec_fn``: it ends with this process, even when that is killed.

    None where the system knows no such thing; the thread that starts the child must outlive it.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask
