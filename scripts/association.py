"""What kernel association costs at one keyframe in Python: the median of 201 rounds, in us.

``android_bench/tests/track_cost.cc`` measures the C library in the same way:
``cmake --preset host -DMOBILEINST_TESTS=ON && cmake --build --preset host`` in ``android_bench``,
then ``build/host/track_cost KNOWN FOUND WIDTH``.
"""

import statistics
import sys
import time

import numpy as np

from mobileinst_deploy.core.association import associate, unit

known_count, found_count, width = (int(v) for v in sys.argv[1:])
rng = np.random.default_rng(1)
known = unit(rng.normal(size=(known_count, width)).astype(np.float32))
found = unit(rng.normal(size=(found_count, width)).astype(np.float32))
half = min(known_count, found_count) // 2
found[:half] = known[:half]  # half of the instances are seen again
us = []
for _ in range(201):
    begin = time.perf_counter_ns()
    match = associate(known, found, 0.5)
    us.append((time.perf_counter_ns() - begin) / 1e3)
print(f"{statistics.median(us):.1f} us, {(match >= 0).sum()} of {found_count} matched")
