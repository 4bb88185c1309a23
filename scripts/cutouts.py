"""Write clips of people and animals cut out of photographs, with COCO and YouTube-VIS annotations.

Give training photographs for --split train and validation ones for val: the clips share nothing.
"""

import argparse
from pathlib import Path

from mobileinst_deploy.core.config import parse_size
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.cutouts import Cutouts
from mobileinst_deploy.data.shapes_files import write_clips

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--annotations", type=Path, required=True, help="photographs, in COCO's form")
parser.add_argument("--images", type=Path, required=True, help="folder of the photographs")
parser.add_argument("--split", choices=("train", "val", "test"), default="val")
parser.add_argument("--clips", type=int, default=40)
parser.add_argument("--length", type=int, default=36, help="frames per clip")
parser.add_argument("--size", default="256x384", help="HEIGHTxWIDTH")
given = parser.parse_args()
pictures = AnnotatedSet(given.images, given.annotations)
cutouts = Cutouts(pictures, given.split, 0, given.clips, given.length, parse_size(given.size))
write_clips(
    given.folder,
    (cutouts.clip(i) for i in range(given.clips)),
    pictures.classes,
    f"cut-outs, split {given.split}",
    (given.clips, given.length),
    cutouts.size,
)
