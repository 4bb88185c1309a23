"""What the data side of training costs: each stage alone, then through a real loader with workers.

    python scripts/data_speed.py IMAGES ANNOTATIONS --side 640 --stride 4 --workers 1

Draws pictures of a file in COCO's form as training does, in batches of 16. The first figures are
processor time of one process. The second ones are of workers that hand batches to a process which
does nothing else: what a GPU that is never waited for would see. Processor time hardly depends on
what else a machine does, and so what 16 cores would give is told from it and not from the clock.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.training.augment import vary
from mobileinst_deploy.training.config import DataConfig, LossConfig, MaskStride, StageConfig
from mobileinst_deploy.training.data import Collate, Sample, Samples
from mobileinst_deploy.training.loading import batches
from mobileinst_deploy.training.sources import AnnotatedSource

PICTURES, BATCH = 48, 16
CORES = 16


def stages(source: AnnotatedSource, stage: StageConfig, stride: MaskStride) -> None:
    """Print the processor time of each stage, and the bytes of masks that a batch moves."""
    rng = np.random.default_rng(0)
    spent = dict.fromkeys(("read", "resize", "collate"), 0.0)
    samples = []
    for clip in rng.integers(len(source), size=PICTURES).tolist():
        begun = time.process_time()
        frames = source.read(clip, [0])
        read = time.process_time()
        samples.append(Sample(vary(frames, True, stage, rng), 0))
        spent["read"] += read - begun
        spent["resize"] += time.process_time() - read
    moved = 0
    for start in range(0, PICTURES, BATCH):
        begun = time.process_time()
        batch = Collate(stride)(samples[start : start + BATCH])
        spent["collate"] += time.process_time() - begun
        moved += sum(t.masks.numel() * t.masks.element_size() for t in batch.targets)
    for name, seconds in spent.items():
        print(f"{name:>8}  {1000 * seconds / PICTURES:6.2f} ms a picture")
    total = sum(spent.values()) / PICTURES
    print(f"{'all':>8}  {1000 * total:6.2f} ms a picture, {1 / total:.0f} a second and core")
    print(f"{'masks':>8}  {moved / PICTURES / 1000:6.0f} kB a picture to move")


def loader(
    source: AnnotatedSource, stage: StageConfig, stride: MaskStride, workers: int, pictures: int
) -> None:
    """Print what a loader gives, and the processor time of its workers and of who asks it."""
    samples = Samples(source, DataConfig(), stage, (0, 0), pictures)
    before, mine = os.times(), time.process_time()
    # Made by workers in full: what they read ahead is asked for, too.
    stream = batches(samples, LossConfig(mask_stride=stride), BATCH, 0, workers=workers)
    next(stream)
    begun, got = time.perf_counter(), 0
    for _ in stream:
        got += BATCH
    wall = time.perf_counter() - begun
    asking = (time.process_time() - mine) / pictures
    del stream  # ends the workers, so that their time is counted
    after = os.times()
    making = (
        after.children_user + after.children_system - before.children_user - before.children_system
    ) / pictures
    print(f"{'loader':>8}  {got / wall:6.1f} pictures a second, {workers} worker(s)")
    print(f"{'worker':>8}  {1000 * making:6.2f} ms a picture, {1 / making:.0f} a second and core")
    print(f"{'asking':>8}  {1000 * asking:6.2f} ms a picture in the training process")
    cores = min(CORES / (making + asking), 1 / asking)
    print(f"{CORES:>2} cores  {cores:6.0f} pictures a second, if memory keeps up; not measured")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--side", type=int, default=640, help="short side, pixels")
    parser.add_argument("--stride", type=int, default=4, choices=get_args(MaskStride))
    parser.add_argument("--workers", type=int, default=1, help="of the loader")
    parser.add_argument("--pictures", type=int, default=320, help="through the loader")
    given = parser.parse_args()
    cv2.setNumThreads(1)  # as a worker has it
    source = AnnotatedSource(AnnotatedSet(given.images, given.annotations), painted=True)
    sides = {"short_sides": (given.side,), "long_side": given.side * 27 // 20}
    stage = StageConfig("image", BATCH, 1e-3, 1, **sides)
    stages(source, stage, given.stride)
    loader(source, stage, given.stride, given.workers, given.pictures)


if __name__ == "__main__":
    main()
