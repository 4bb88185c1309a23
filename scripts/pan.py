"""Write a clip that pans over photographs of scikit-image: a cat, and beside it a person.

Real texture, a moving camera and two objects that come and go, with nothing to download.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from mobileinst_deploy.media.pictures import bundled_photographs, read_picture

SIZE = (256, 384)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--frames", type=int, default=72)
given = parser.parse_args()
given.folder.mkdir(parents=True, exist_ok=True)

folder = bundled_photographs()[0].parent
cat, person = (read_picture(folder / name) for name in ("chelsea.png", "astronaut.png"))
height = 360
wall = np.hstack(
    [cv2.resize(p, (round(p.shape[1] * height / p.shape[0]), height)) for p in (cat, person)]
)
for t in range(given.frames):
    # There and back, and a little closer in the middle.
    phase = (1 - np.cos(2 * np.pi * t / given.frames)) / 2
    h = round(300 - 40 * np.sin(2 * np.pi * t / given.frames) ** 2)
    w = h * SIZE[1] // SIZE[0]
    left, top = round(phase * (wall.shape[1] - w)), (height - h) // 2
    view = cv2.resize(wall[top : top + h, left : left + w], SIZE[::-1])
    cv2.imwrite(str(given.folder / f"{t:05d}.png"), view[..., ::-1])
