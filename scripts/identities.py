"""Count how often an object of a clip changes its identity, against YouTube-VIS annotations.

In every frame, tracks are matched with annotated objects one-to-one at the best total IoU, pairs
below one half apart. An object that is matched with another track than when it was matched last
counts one switch.
"""

import argparse
from pathlib import Path

from scipy.optimize import linear_sum_assignment

from mobileinst_deploy.core.masks import iou
from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.core.tracker import Tracker, TrackSettings
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.media.letterbox import prepare, unfit_masks
from mobileinst_deploy.workflows.subject import open_subject

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="an exported pair, a checkpoint or a zoo id")
parser.add_argument("images", type=Path)
parser.add_argument("annotations", type=Path)
parser.add_argument("-T", "--clip-lengths", default="1,3,6")
parser.add_argument("--score", type=float, default=0.3)
given = parser.parse_args()
subject = open_subject(given.model)
data = AnnotatedSet(given.images, given.annotations, subject.config.classes, clips=True)
for schedule in given.clip_lengths.split(","):
    shown = followed = switches = 0
    for clip in range(len(data)):
        tracker = Tracker(
            subject.runner, parse_schedule(schedule), TrackSettings(score=given.score)
        )
        last: dict[int, int] = {}
        for sample in data.clip(clip):
            image, geometry = prepare(sample.image, subject.config.input_size)
            frame = tracker.step(image)
            overlaps = iou(sample.masks, unfit_masks(frame.mask_logits, geometry))
            shown += len(sample.masks)
            for i, j in zip(*linear_sum_assignment(-overlaps), strict=True):
                if overlaps[i, j] >= 0.5:
                    thing, track = int(sample.track_ids[i]), int(frame.ids[j])
                    followed += 1
                    switches += last.get(thing, track) != track
                    last[thing] = track
    print(
        f"T = {schedule}: {switches} identity switches among {followed} matched objects "
        f"({shown} shown in {len(data)} clips)"
    )
