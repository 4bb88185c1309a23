"""A signal that asks the process to end, as an exception that cleans up on its way out."""

from __future__ import annotations


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
