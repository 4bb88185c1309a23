"""What is in one picture?

python examples/picture.py PAIR PICTURE OVERLAY.png
"""

import sys

import cv2

import mobileinst_deploy as mobileinst

if len(sys.argv) != 4:
    sys.exit(__doc__)
folder, path, overlay = sys.argv[1:]
pair = mobileinst.load_pair(folder)  # what `mobileinst export` wrote
bgr = cv2.imread(path)
found = mobileinst.segment(pair, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
for name, score, mask in zip(found.classes, found.scores, found.masks, strict=True):
    print(f"{name}: score {score:.2f}, {mask.sum()} pixels")
    bgr[mask] = bgr[mask] // 2 + (0, 127, 0)  # tinted green
cv2.imwrite(overlay, bgr)
