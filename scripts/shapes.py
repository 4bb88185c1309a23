"""Write clips of moving shapes as pictures with COCO and YouTube-VIS annotations."""

import argparse
from pathlib import Path

from mobileinst_deploy.core.config import parse_size
from mobileinst_deploy.data.shapes_files import write_shapes

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--split", choices=("train", "val", "test"), default="val")
parser.add_argument("--clips", type=int, default=20)
parser.add_argument("--length", type=int, default=24, help="frames per clip")
parser.add_argument("--size", default="192x320", help="HEIGHTxWIDTH")
parser.add_argument("--first", type=int, default=0, help="index of the first clip in its split")
given = parser.parse_args()
write_shapes(
    given.folder,
    given.split,
    given.clips,
    given.length,
    parse_size(given.size),
    first=given.first,
)
