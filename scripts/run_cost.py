"""Processor time of `mobileinst run` for each frame: of its first thread, and of all of them.

    python scripts/run_cost.py PAIR CLIP

Unlike frames per second it hardly depends on what else a machine does. Where cores are free, frames
come as fast as the busiest thread allows, and that is the first: others read and encode.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mobileinst_deploy.workflows.run import run


def main() -> None:
    """Run the clip and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path)
    parser.add_argument("clip")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, everything = time.thread_time(), time.process_time()
        report = run(given.pair, given.clip, Path(folder) / "out")
        first, everything = time.thread_time() - first, time.process_time() - everything
    each = 1000 / report.frames
    print(
        f"{report.frames} frames: {first * each:.2f} ms each in the first thread, "
        f"{everything * each:.2f} ms in all; {report.frames / report.wall_seconds:.1f} frames/s now"
    )


if __name__ == "__main__":
    main()
