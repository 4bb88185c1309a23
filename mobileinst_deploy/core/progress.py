"""How a stage tells of its progress without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives ``(label, done, total)`` as work goes on.

    ``label`` names what is being done, in words for people; a new label begins a new bar. ``done``
    and ``total`` share a unit; ``total`` is None while it is unknown.
    """

    def __call__(self, label: str, done: float, total: float | None) -> None:
        """Report that ``done`` of ``total`` is finished."""
        ...


def silent(label: str, done: float, total: float | None) -> None:
    """A listener that shows nothing."""
