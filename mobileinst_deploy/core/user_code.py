"""Code of the user's that a command runs, as it was named on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def printing_aside() -> Iterator[None]:
    """While the user's code may run: what it prints goes to stderr, as stdout is the result's."""
    with redirect_stdout(sys.stderr):
        yield
