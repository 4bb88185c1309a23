"""What association costs at one keyframe in Python: the median of 201 rounds, processor time in us.

Kernels alone, and with what masks say (ADR 29): the overlaps of discs on the grid of the mask
logits of a 384x640 picture, as the tracker holds them. ``android_bench/tests/track_cost.cc``
measures the C library in the same way: ``cmake --preset host -DMOBILEINST_TESTS=ON && cmake
--build --preset host`` in ``android_bench``, then ``build/host/track_cost KNOWN FOUND WIDTH``.
"""

import statistics
import sys
import time

import numpy as np

from mobileinst_deploy.core.association import associate, unit
from mobileinst_deploy.core.masks import iou

GRID = (48, 80)


def discs(rng: np.random.Generator, count: int) -> np.ndarray:
    """Masks (count, h, w) of random places and sizes."""
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    at = rng.uniform(0, 1, (count, 3, 1, 1)) * np.reshape([*GRID, GRID[0] / 4], (3, 1, 1))
    return (y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2 < at[:, 2] ** 2


known_count, found_count, width = (int(v) for v in sys.argv[1:])
rng = np.random.default_rng(1)
known = unit(rng.normal(size=(known_count, width)).astype(np.float32))
found = unit(rng.normal(size=(found_count, width)).astype(np.float32))
before, now = discs(rng, known_count), discs(rng, found_count)
half = min(known_count, found_count) // 2
found[:half] = known[:half]  # half of the instances are seen again, one place to the right
now[:half] = np.roll(before[:half], 1, axis=2)
for overlaps in (False, True):
    us = []
    for _ in range(201):
        begin = time.thread_time_ns()
        nearness = 0.6 * iou(now, before) if overlaps else 0.0
        match = associate(known, found, 0.5, nearness)
        us.append((time.thread_time_ns() - begin) / 1e3)
    how = "with overlaps" if overlaps else "kernels alone"
    print(f"{how}: {statistics.median(us):.1f} us, {(match >= 0).sum()} of {found_count} matched")
