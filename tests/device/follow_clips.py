"""The long round of ``test_track_library``: drawn clips, followed by both trackers.

``python tests/device/follow_clips.py CLIPS [SEED]`` says how far it is, and ends at the first clip
in which the library differs from the specification, with that clip.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

# As a program of its own it has no conftest that would find the other tests' modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from track_checker import Checker, Clip, follow_both

from mobileinst_deploy.core.tracker import TrackSettings


def draw(rng: np.random.Generator) -> Clip:
    """A clip as hypothesis draws them for the short round."""

    def one(*values: float) -> float:
        return float(rng.choice(values))

    n, c, d, h, w = (int(v) for v in rng.integers(1, 8, 5))
    picture = (int(rng.integers(1, 91)), int(rng.integers(1, 91)))
    auto = (one(0.0, 3.0, 60.0), one(0.0, 0.9, 1.0))
    return Clip(
        seed=int(rng.integers(0, 2**32)),
        sizes=(n, c, d, h, w),
        clip_length=int(rng.integers(1, 5)),
        picture=picture if rng.random() < 0.5 else None,
        settings=TrackSettings(
            score=one(0.0, 0.3, 0.5),
            keep=one(0.0, 0.5, 1.0),
            similarity=one(-1.0, 0.0, 0.2, 0.7),
            memory=int(rng.integers(0, 4)),
            duplicate_iou=one(0.1, 0.6, 1.0),
            remembered=int(one(1, 2, 10)),
            overlap=one(0.0, 0.6, 2.0),
        ),
        auto=auto if rng.random() < 0.5 else None,
        plain=bool(rng.random() < 0.5),
    )


def main() -> None:
    """Follow so many clips."""
    clips = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rng, checker, began = np.random.default_rng(seed), Checker(), time.monotonic()
    for done in range(clips):
        clip = draw(rng)
        try:
            follow_both(checker, clip)
        except BaseException:
            print(f"clip {done} of seed {seed}: {clip}", flush=True)
            raise
        if done % 1000 == 999:
            print(f"{done + 1} clips alike in {time.monotonic() - began:.0f} s", flush=True)
    checker.close()
    print(f"all {clips} clips alike")


if __name__ == "__main__":
    main()
