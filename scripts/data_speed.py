"""Processor time for each stage of the data pipeline, for each picture, in one process.

    python scripts/data_speed.py IMAGES ANNOTATIONS --side 640 --stride 4

Reads 48 drawn pictures of a file in COCO's form as training does, in batches of 16.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.training.augment import vary
from mobileinst_deploy.training.config import StageConfig
from mobileinst_deploy.training.data import Collate, Sample
from mobileinst_deploy.training.sources import AnnotatedSource

PICTURES, BATCH = 48, 16

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("images", type=Path)
parser.add_argument("annotations", type=Path)
parser.add_argument("--side", type=int, default=640, help="short side, pixels")
parser.add_argument("--stride", type=int, default=4, choices=(1, 2, 4, 8))
given = parser.parse_args()

cv2.setNumThreads(1)  # as a worker has it
source = AnnotatedSource(AnnotatedSet(given.images, given.annotations), painted=True)
stage = StageConfig(
    "image", BATCH, 1e-3, 1, short_sides=(given.side,), long_side=given.side * 27 // 20
)
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
    batch = Collate(given.stride)(samples[start : start + BATCH])
    spent["collate"] += time.process_time() - begun
    moved += sum(t.masks.numel() * t.masks.element_size() for t in batch.targets)
for name, seconds in spent.items():
    print(f"{name:>8}  {1000 * seconds / PICTURES:6.2f} ms a picture")
total = sum(spent.values()) / PICTURES
print(f"{'all':>8}  {1000 * total:6.2f} ms a picture, {1 / total:.0f} a second and core")
print(f"{'masks':>8}  {moved / PICTURES / 1000:6.0f} kB a picture to move")
