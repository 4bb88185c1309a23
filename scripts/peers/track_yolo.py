"""Follow the objects of clips with a YOLO segmentation network and its tracker, as a results file.

Run by the python of scripts/peers/setup. The tracker is ultralytics' ByteTrack, on every frame,
with its own settings, or with thresholds as low as this project's evaluation of tracks has them.
``mobileinst evaluate FILE --dataset ytvis --annotations ...`` tells the AP of the file.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")

import numpy as np
import torch
import yaml
from ultralytics import YOLO

from mobileinst_deploy.core.masks import Rle, encode, side_by_side
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.samples import Media, read_frame
from mobileinst_deploy.measure.average_precision import Candidate
from mobileinst_deploy.workflows.results_file import write_results
from mobileinst_deploy.workflows.search import MOST_FOUND, TRACK_SETTINGS, Found

# Ultralytics 8.4.190's ByteTrack.
OWN = {
    "tracker_type": "bytetrack",
    "track_high_thresh": 0.25,
    "track_low_thresh": 0.1,
    "new_track_thresh": 0.25,
    "track_buffer": 30,
    "match_thresh": 0.8,
    "fuse_score": True,
}
LOW = OWN | dict.fromkeys(
    ("track_high_thresh", "track_low_thresh", "new_track_thresh"), TRACK_SETTINGS.score
)


def tracks_of(clip: Media, folder: Path, weights: Path, side: int, tracker: Path) -> Found:
    """The tracks of one clip; a new network for each, since the tracker lives in it."""
    model = YOLO(str(weights))
    masks: dict[int, dict[int, Rle]] = {}
    scores: dict[int, dict[int, list[float]]] = {}
    for t in range(len(clip.files)):
        (result,) = model.track(
            read_frame(clip, t, folder)[..., ::-1], persist=True, tracker=str(tracker),
            imgsz=side, conf=TRACK_SETTINGS.score, max_det=MOST_FOUND, retina_masks=True,
            device="cpu", verbose=False,
        )  # fmt: skip
        if result.masks is None or result.boxes.id is None:
            continue
        found = zip(
            result.boxes.id.int().tolist(),
            result.masks.data.numpy() > 0.5,
            result.boxes.cls.int().tolist(),
            result.boxes.conf.tolist(),
            strict=True,
        )
        for track, mask, label, score in found:
            if mask.any():
                masks.setdefault(track, {})[t] = encode(mask)
            scores.setdefault(track, {}).setdefault(label, []).append(score)
    frames = len(clip.files)
    return Found(
        [
            Candidate(
                side_by_side([shown.get(t) for t in range(frames)], clip.size), (_best(scores[i]),)
            )
            for i, shown in masks.items()
        ],
        keyframes=frames,
    )


def _best(scores: dict[int, list[float]]) -> tuple[int, float]:
    """The class seen with most confidence in all, and its mean score."""
    label = max(scores, key=lambda one: sum(scores[one]))
    return label, float(np.mean(scores[label]))


def main() -> None:
    """Follow every clip and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("results", type=Path, help="JSON file to write")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True, help="in YouTube-VIS's form")
    parser.add_argument("--side", type=int, default=384, help="of the square picture")
    parser.add_argument("--low", action="store_true", help="thresholds of 0.05")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = AnnotatedSet(given.images, given.annotations, clips=True)
    tracker = given.results.with_suffix(".yaml")
    tracker.write_text(yaml.safe_dump(LOW if given.low else OWN))

    def found() -> Iterator[tuple[Media, Found]]:
        for clip in data.media:
            yield clip, tracks_of(clip, given.images, given.weights, given.side, tracker)

    print(write_results(given.results, found(), data, clips=True), "tracks")


if __name__ == "__main__":
    main()
