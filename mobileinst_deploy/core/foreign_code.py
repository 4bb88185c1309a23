"""The user's own code runs in this process: a network named by ``--network``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def printing_aside() -> Iterator[None]:
    """While the user's code may run: what it prints goes to stderr, as stdout is the result's."""
    with redirect_stdout(sys.stderr):
        yield
