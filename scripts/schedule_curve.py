"""Draw track AP against instructions a frame: every fixed T, and `-T auto`.

A frame's instructions are amortised: those of the keyframes and reuse frames that the evaluation
ran, over all frames.
"""

import argparse
import json
from pathlib import Path

from mobileinst_deploy.measure.charts import Point, alone, scatter

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("evaluation", type=Path, help="eval.json of `mobileinst evaluate`")
parser.add_argument("counts", type=Path, help="of `mobileinst bench PAIR --device qemu --count`")
parser.add_argument("output", type=Path, help="an SVG file")
given = parser.parse_args()
clips = json.loads(given.evaluation.read_text())["clips"]
counts = json.loads(given.counts.read_text())["instructions"]
points = []
print("| T | keyframes | AP | AP50 | M instructions a frame |\n|---|---|---|---|---|")
for name, block in clips.items():
    share = block["keyframes"] / block["frames"]
    millions = (share * counts["frame"] + (1 - share) * counts["mask_head"]) / 1e6
    points.append(Point(name if name == "auto" else f"T = {name}", millions, 100 * block["AP"]))
    print(
        f"| {name} | {block['keyframes']} of {block['frames']} | {block['AP']:.3f} | "
        f"{block['AP50']:.3f} | {millions:.0f} |"
    )
label = "million ARM instructions a frame, amortised"
given.output.write_text(alone(scatter(points, label, "track AP, %")))
