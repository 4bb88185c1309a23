"""How well measurements of one kind agree from turn to turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mobileinst_deploy.core.text import ms_text, shown
from mobileinst_deploy.measure.record import LatencyRecord


def agreement(records: Sequence[LatencyRecord]) -> tuple[str, ...]:
    """A sentence for each device and T that was measured more than once.

    It tells the median of the turns and their range: what differs between turns is what one turn,
    with its own small spread, cannot see. Invalid turns do not count, and an emulated device has no
    sentence.

    Examples:
        >>> agreement([])
        ()
    """
    turns: dict[tuple[str, int], list[float]] = defaultdict(list)
    for record in records:
        if record.valid and not record.emulated:
            for clip in record.clips:
                turns[record.device.name, clip.clip_length].append(clip.amortised_ms)
    return tuple(
        f"{shown(name)}, T = {length}: {ms_text(np.median(found))} ms a frame, the median of "
        f"{len(found)} turns from {ms_text(min(found))} to {ms_text(max(found))} "
        f"({(max(found) - min(found)) / np.median(found):.1%})"
        for (name, length), found in turns.items()
        if len(found) > 1
    )
