"""How well one track follows the one annotated object of each clip, whatever its class.

For clips whose annotations say no class, as DAVIS's. Of each clip: the mean over its frames of the
IoU of the object's mask with the best track's (0 where that is not shown), and the share of frames
in which no other track overlaps the object more.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.core.tracker import track_clip
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.media.letterbox import prepare, unfit_masks
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.runtimes.pytorch import TorchRunner

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="zoo id or checkpoint")
parser.add_argument("--images", type=Path, required=True)
parser.add_argument("--annotations", type=Path, required=True)
parser.add_argument("--content", nargs="*", help="only clips whose `content` is one of these")
parser.add_argument("-T", default="3")
parser.add_argument("--reuse-context", choices=("none", "x6", "x5", "x4"))
given = parser.parse_args()

loaded = load_model(given.model, reuse_context=given.reuse_context)
runner = TorchRunner(loaded.model)
listed = {v["id"]: v for v in json.loads(given.annotations.read_text())["videos"]}
clips = AnnotatedSet(given.images, given.annotations, clips=True)
rows = []
for i, medium in enumerate(clips.media):
    about = listed[medium.id]
    if given.content and (about.get("is_union") or about.get("content") not in given.content):
        continue
    samples = [clips.sample(i, t) for t in range(clips.length(i))]
    fitted = [prepare(sample.image, loaded.config.input_size) for sample in samples]
    overlaps: list[dict[int, float]] = []
    tracked = track_clip(runner, (image for image, _ in fitted), parse_schedule(given.T))
    for frame, sample, (_, geometry) in zip(tracked, samples, fitted, strict=True):
        if not len(sample.masks):
            continue
        truth = sample.masks.any(0)
        masks = unfit_masks(frame.mask_logits, geometry)
        shares = [(m & truth).sum() / max((m | truth).sum(), 1) for m in masks]
        overlaps.append(dict(zip(frame.ids.tolist(), shares, strict=True)))
    ids = {identity for each in overlaps for identity in each}
    means = {i: float(np.mean([each.get(i, 0.0) for each in overlaps])) for i in ids}
    best = max(means, key=lambda i: means[i], default=0)
    held = np.mean([bool(each) and max(each, key=lambda i: each[i]) == best for each in overlaps])
    rows.append((means.get(best, 0.0), float(held)))
    print(
        f"{about.get('name', medium.id)}: IoU {rows[-1][0]:.3f}, held {rows[-1][1]:.2f}", flush=True
    )
iou, held = np.mean(rows, axis=0)
print(f"mean of {len(rows)} clips: IoU {iou:.3f}, held {held:.2f}")
