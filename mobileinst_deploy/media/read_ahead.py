"""Pictures read, and made ready, by a thread of its own, a few ahead of the one who uses them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, Self, TypeVar

_Read = TypeVar("_Read")

#: Pictures that wait, at most: memory stays flat, and a hiccup of the reader is not felt.
_MOST_WAITING = 3
_TICK_S = 0.1


class ReadAhead(Generic[_Read]):
    """A clip's pictures, or what is made of them, in order; a context manager and an iterator.

    What ends the reading, an error too, comes after the pictures before it. Leaving the block stops
    the thread.

    Args:
        pictures: The clip; a generator runs in the thread.
    """

    def __init__(self, pictures: Iterable[_Read]) -> None:
        self._pictures = pictures
        self._waiting: queue.Queue[_Read | BaseException | None] = queue.Queue(_MOST_WAITING)
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __iter__(self) -> Iterator[_Read]:
        return self

    def __next__(self) -> _Read:
        given = self._waiting.get()
        if given is None:
            raise StopIteration
        if isinstance(given, BaseException):
            raise given
        return given

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # A camera that gives no more pictures keeps its thread waiting; it ends with the program.
        self._reader.join(timeout=1.0)

    def _read(self) -> None:
        end: BaseException | None = None
        pictures = iter(self._pictures)
        try:
            for picture in pictures:
                if not self._give(picture):
                    break
        except BaseException as error:  # whatever it is, it is the other thread's to judge
            end = error
        finally:
            if isinstance(pictures, Generator):
                pictures.close()  # here, where it ran
        self._give(end)

    def _give(self, what: _Read | BaseException | None) -> bool:
        """Wait until there is room; False when nobody wants more."""
        while not self._stop.is_set():
            try:
                self._waiting.put(what, timeout=_TICK_S)
            except queue.Full:
                continue
            return True
        return False
