"""Calibrate `-T auto`: how masks of reused kernels decay, and which signs tell of it.

On clips with masks, every frame in turn is a keyframe and its kernels are reused on the frames
after it. Compared is the IoU of an object's mask with the truth: by the reused kernel, and by the
best instance that a keyframe there would find. Then every setting of the rule is played through
all clips. The one is chosen whose masks lie farthest above the line that fixed T make of keyframes
spent and IoU kept. Choose on clips of training pictures; measure on others.
"""

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mobileinst_deploy.core.association import distinct_instances
from mobileinst_deploy.core.graphs import Graphs
from mobileinst_deploy.core.masks import iou, threshold
from mobileinst_deploy.core.picture_rules import SCORE_THRESHOLD
from mobileinst_deploy.core.schedule import Auto, brightness_change, mask_certainty
from mobileinst_deploy.core.tracker import TrackSettings, class_scores
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.media.letterbox import prepare
from mobileinst_deploy.workflows.subject import Subject, open_subject

LONGEST = 8
#: An instance of a keyframe is an object's when their masks overlap so far.
SAME = 0.4
FIXED = (1, 2, 3, 4, 6, 8)
SETTINGS = product((6, 8), (8.0, 12.0, 16.0, 24.0, 99.0), (0.0, 0.85, 0.9, 0.93, 0.95, 0.97))


class Reuse(NamedTuple):
    """A frame that reuses a keyframe's kernels.

    Attributes:
        change: Of brightness since the keyframe, 0 to 255.
        certainty: Of its masks, as a share of the keyframe's.
        kept: Mean IoU of the keyframe's objects' masks with the truth; NaN without any.
        fresh: The same for what a keyframe here finds.
    """

    change: float
    certainty: float
    kept: float
    fresh: float


#: By clip, keyframe, and frames since; a keyframe's own is at 0.
Table = dict[tuple[int, int, int], Reuse]


def measure(subject: Subject, clips: AnnotatedSet) -> Table:
    """Reuse every frame's kernels on the frames after it."""
    graphs, table = Graphs(subject.runner), {}
    for clip in range(len(clips)):
        frames = [clips.sample(clip, t) for t in range(clips.length(clip))]
        images = [prepare(frame.image, subject.config.input_size)[0] for frame in frames]
        truth = [
            dict(zip(f.track_ids.tolist(), map(_small(graphs), f.masks), strict=True))
            for f in frames
        ]
        outputs = [graphs.frame(image) for image in images]
        found = [_found(out) for out in outputs]
        for start, out in enumerate(outputs):
            masks = threshold(out["mask_logits"][0, found[start]])
            objects = _objects(masks, truth[start])
            if not objects:
                continue
            sure = mask_certainty(out["mask_logits"][0, found[start]])
            live = {**out, "kernels": np.ascontiguousarray(out["kernels"][:, found[start]])}
            for since in range(min(LONGEST, len(images) - start)):
                now = start + since
                logits = graphs.mask_head(images[now], live)[0]
                there = threshold(outputs[now]["mask_logits"][0, found[now]])
                seen = {o: q for o, q in objects.items() if o in truth[now]}
                table[clip, start, since] = Reuse(
                    brightness_change(images[now], images[start]),
                    mask_certainty(logits) / max(sure, 1e-6),
                    _mean([_iou(logits[q] > 0, truth[now][o]) for o, q in seen.items()]),
                    _mean([max((_iou(m, truth[now][o]) for m in there), default=0) for o in seen]),
                )
    return table


def play(table: Table, lengths: list[int], rule: Auto | int) -> tuple[float, float]:
    """(keyframes as a share of frames, mean IoU) of a schedule over all clips."""
    keyframes, kept = 0, []
    for clip, length in enumerate(lengths):
        start = 0
        for now in range(length):
            if now == 0 or _asks(table, rule, clip, start, now - start):
                start = now
                keyframes += 1
            if (reuse := table.get((clip, start, now - start))) is not None:
                kept.append(reuse.kept)
    return keyframes / sum(lengths), float(np.nanmean(kept))


def _asks(table: Table, rule: Auto | int, clip: int, start: int, since: int) -> bool:
    if isinstance(rule, int):
        return since >= rule
    last, coming = (table.get((clip, start, n)) for n in (since - 1, since))
    return (
        since >= rule.longest
        or (last is not None and last.certainty < rule.certainty)
        or (coming is not None and coming.change > rule.change)
    )


def _found(outputs: dict[str, np.ndarray]) -> np.ndarray:
    scores = class_scores(outputs["class_logits"][0], outputs["objectness_logits"][0]).max(1)
    logits = outputs["mask_logits"][0]
    return distinct_instances(scores, logits, SCORE_THRESHOLD, TrackSettings().duplicate_iou)


def _objects(masks: np.ndarray, truth: dict[int, np.ndarray]) -> dict[int, int]:
    """Which mask shows each object, where one does."""
    if not len(masks) or not truth:
        return {}
    overlap = iou(masks, np.stack(list(truth.values())))
    best = overlap.argmax(0)
    return {o: int(q) for o, q, c in zip(truth, best, overlap.T, strict=True) if c[q] >= SAME}


def _small(graphs: Graphs) -> Callable[[np.ndarray], np.ndarray]:
    def small(mask: np.ndarray) -> np.ndarray:
        size = graphs.mask_size[::-1]
        shares = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return np.asarray(shares > 0.5)

    return small


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def main() -> None:
    """Measure, play, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="an exported pair or a zoo id")
    parser.add_argument("folder", type=Path, help="clips as scripts/cutouts.py writes them")
    parser.add_argument("--share", type=float, default=0.36, help="most keyframes among frames")
    given = parser.parse_args()
    subject = open_subject(given.model, "cpu")
    annotations = given.folder / "ytvis.json"
    clips = AnnotatedSet(
        given.folder / "JPEGImages", annotations, subject.config.classes, clips=True
    )
    lengths = [clips.length(i) for i in range(len(clips))]
    table = measure(subject, clips)

    print("frames since | change | certainty | IoU kept | IoU of a keyframe")
    for since in range(1, LONGEST):
        rows = np.array([r for (_, _, n), r in table.items() if n == since])
        print(f"{since} | {' | '.join(f'{v:.3f}' for v in np.nanmean(rows, 0))}")
    line = sorted(play(table, lengths, length) for length in FIXED)
    shares, levels = zip(*line, strict=True)
    for length in FIXED:
        share, kept = play(table, lengths, length)
        print(f"T = {length}: keyframes {share:.3f}, IoU {kept:.4f}")

    def above(point: tuple[float, float]) -> float:
        return point[1] - float(np.interp(point[0], shares, levels))

    rules = [*(Auto(*setting) for setting in SETTINGS), Auto()]
    tried = [(play(table, lengths, rule), rule) for rule in rules]
    for name, (point, rule) in (
        ("as it is", tried[-1]),
        ("best", max((t for t in tried if t[0][0] <= given.share), key=lambda t: above(t[0]))),
    ):
        setting = {k: getattr(rule, k) for k in ("longest", "change", "certainty")}
        print(
            f"auto, {name}: {json.dumps(setting)}: keyframes {point[0]:.3f}, IoU {point[1]:.4f}, "
            f"{above(point):+.4f} against fixed T"
        )


if __name__ == "__main__":
    main()
