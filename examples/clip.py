"""Where does each object of a clip go? A table with a row per object and frame.

    python examples/clip.py PAIR CLIP PATHS.csv

CLIP is a video, a folder of pictures or one picture. One frame is in memory at a time, so that a
clip may be as long as you like.
"""

import csv
import sys

import mobileinst_deploy as mobileinst

if len(sys.argv) != 4:
    sys.exit(__doc__)
folder, clip, table = sys.argv[1:]
pair = mobileinst.load_pair(folder)
with open(table, "w", newline="") as file:  # noqa: PTH123
    rows = csv.writer(file)
    rows.writerow(["frame", "keyframe", "identity", "class", "score", "x", "y", "pixels"])
    for frame in mobileinst.track(pair, clip, clip_length=3):
        for number, name, score, mask in zip(
            frame.identities, frame.classes, frame.scores, frame.masks, strict=True
        ):
            if not mask.any():
                continue  # followed, but hidden in this frame
            y, x = (where.mean() for where in mask.nonzero())
            place = [f"{score:.3f}", f"{x:.1f}", f"{y:.1f}", mask.sum()]
            rows.writerow([frame.index, frame.keyframe, number, name, *place])
