"""Write one picture of what a model finds in several: hits and failures side by side.

Without pictures, those of scikit-image, whose terms are free: a person and a cat, which it should
find, a man in grey, a silhouette of a horse, and two pictures with nothing to find.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from mobileinst_deploy.media.pictures import bundled_photographs
from mobileinst_deploy.workflows.run import run

NAMES = ("astronaut", "chelsea", "camera", "horse", "coffee", "motorcycle_left")
SIZE, COLUMNS = (200, 300), 3

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("pair", type=Path, help="an exported pair")
parser.add_argument("output", type=Path, help="a .jpg")
parser.add_argument("pictures", type=Path, nargs="*")
given = parser.parse_args()
folder = bundled_photographs()[0].parent
cells = []
for path in given.pictures or [folder / f"{name}.png" for name in NAMES]:
    with tempfile.TemporaryDirectory() as there:
        run(given.pair, str(path), Path(there))
        (overlay,) = Path(there).glob("overlay*")
        image = cv2.imread(str(overlay))
    scale = min(SIZE[0] / image.shape[0], SIZE[1] / image.shape[1])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cell = np.full((*SIZE, 3), 255, np.uint8)
    cell[: small.shape[0], : small.shape[1]] = small
    cells.append(cell)
rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
cv2.imwrite(str(given.output), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])
