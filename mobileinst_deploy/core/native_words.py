"""What native code writes to stderr, past Python: collected, to be told or left untold."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator

#: Only one block at a time may hold the descriptor.
_STDERR = threading.Lock()


@contextlib.contextmanager
def stderr_into(lines: list[str]) -> Iterator[None]:
    """Collect what native code writes to stderr inside the block.

    Args:
        lines: What was written is added here when the block ends.
    """
    with _STDERR, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr, and so nobody tells
            yield
            return
        try:
            os.dup2(file.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        lines += file.read().decode(errors="replace").splitlines()
