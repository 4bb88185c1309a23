"""Average precision of tracks through clips, by the rules of YouTube-VIS's evaluator.

They are COCO's but for these. The IoU of two tracks is that of their masks over all frames, also
where the annotated one is a region of many objects: COCO would ask what share of the found mask
lies inside. A track's size is the mean area of the frames that show it, and the sizes' bounds are
others. A track that no frame shows is an object all the same, which nothing can find. Where an
annotated mask has another size than its clip, nothing found in that frame overlaps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import hotcoco.mask
import numpy as np

from mobileinst_deploy.core.masks import Rle, apart, rle_area
from mobileinst_deploy.measure.average_precision import Candidate, Truth

#: YouTube-VIS's names; S, M and L are tracks up to 128^2, up to 256^2 and above, in pixels.
CLIP_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")
MOST_PER_CLASS = 100
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_SIZES = {"": (0.0, 1e10), "s": (0.0, 128.0**2), "m": (128.0**2, 256.0**2), "l": (256.0**2, 1e10)}


class _Matched(NamedTuple):
    """The candidates of one class in one clip against its tracks, for one range of sizes.

    Attributes:
        scores: (n,), descending.
        hits: (thresholds, n) whether a candidate found a track.
        ignored: (thresholds, n) whether it counts neither as right nor as wrong.
        objects: Tracks that count.
    """

    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    objects: int


class TrackPrecision:
    """Compares the tracks that were found with those that are there, one clip at a time.

    Each clip is matched when it is added, so that no masks are kept.

    Args:
        classes: Class names in label order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._truths = 0
        self._matches: dict[tuple[int, str], list[_Matched]] = {}
        self._curves: dict[tuple[int, str, int], tuple[np.ndarray, np.ndarray] | None] = {}

    @property
    def objects(self) -> int:
        """How many annotated tracks were added."""
        return self._truths

    def add(self, size: tuple[int, int], truth: list[Truth], found: list[Candidate]) -> None:
        """Add one clip.

        Args:
            size: (height, width) of a frame in pixels.
            truth: The tracks that are there.
            found: Those that the model found.
        """
        self._truths += len(truth)
        self._curves.clear()
        frames = [apart(one.mask, one.mask["size"][1] // size[1]) for one in found]
        areas = [_mean_area(masks) for masks in frames]
        pairs: dict[int, list[tuple[float, int]]] = {}
        for number, one in enumerate(found):
            for label, score in one.scores:
                pairs.setdefault(label, []).append((score, number))
        for label in sorted({one.label for one in truth} | set(pairs)):
            tracks = [one for one in truth if one.label == label]
            best = sorted(pairs.get(label, []), key=lambda pair: -pair[0])[:MOST_PER_CLASS]
            chosen = [number for _, number in best]
            ious = _overlaps([found[i] for i in chosen], [frames[i] for i in chosen], tracks)
            scores = np.array([score for score, _ in best])
            sizes = np.array([areas[i] for i in chosen])
            for name, bounds in _SIZES.items():
                matched = _match(scores, sizes, ious, tracks, bounds)
                self._matches.setdefault((label, name), []).append(matched)

    def metrics(self, names: Sequence[str]) -> dict[str, float | None]:
        """Metrics by YouTube-VIS's names, in [0, 1]; None where there is nothing to measure."""
        return {name: self._metric(name, range(len(self._classes))) for name in names}

    def per_class(self) -> dict[str, float | None]:
        """AP of every class, in [0, 1]; None for a class that the data does not show."""
        return {name: self._metric("AP", [i]) for i, name in enumerate(self._classes)}

    def _metric(self, name: str, labels: Sequence[int]) -> float | None:
        kind, rest = name[:2], name[2:]
        values = []
        for label in labels:
            if kind == "AR":
                curve = self._curve(label, "", int(rest))
                values += [] if curve is None else [curve[1]]
            else:
                curve = self._curve(label, rest if rest in _SIZES else "", MOST_PER_CLASS)
                values += [] if curve is None else [curve[0][_at(rest)]]
        return float(np.mean(values)) if values else None

    def _curve(self, label: int, size: str, most: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(thresholds, recalls) precision and (thresholds,) recall; None without an object."""
        key = label, size, most
        if key not in self._curves:
            self._curves[key] = _accumulate(self._matches.get((label, size), []), most)
        return self._curves[key]


def _at(rest: str) -> slice:
    """The thresholds that a metric such as AP50 is the mean of."""
    if not rest.isdigit():
        return slice(None)
    place = round((int(rest) / 100 - 0.5) / 0.05)
    return slice(place, place + 1)


def _mean_area(masks: Sequence[Rle | None]) -> float:
    areas = [rle_area(mask) for mask in masks if mask is not None]
    return sum(areas) / len(areas) if areas else 0.0


def _overlaps(
    found: list[Candidate], frames: list[list[Rle | None]], tracks: list[Truth]
) -> np.ndarray:
    """IoU (found, tracks) over all frames."""
    if not found or not tracks:
        return np.zeros((len(found), len(tracks)))
    masks = [dict(one.mask) for one in found]
    plain = hotcoco.mask.iou(masks, [dict(one.mask) for one in tracks], [False] * len(tracks))
    ious = np.array(plain, np.float64).reshape(len(found), len(tracks))
    for j, track in enumerate(tracks):
        if track.odd:
            for i, candidate in enumerate(found):
                ious[i, j] = _odd_overlap(candidate, frames[i], track)
    return ious


def _odd_overlap(candidate: Candidate, frames: list[Rle | None], track: Truth) -> float:
    """IoU where the track has masks of another size: such a frame counts only if it is missed."""
    both = hotcoco.mask.merge([dict(candidate.mask), dict(track.mask)], True)
    common = rle_area(dict(both))
    union = rle_area(candidate.mask) + rle_area(track.mask) - common
    for t, pixels in track.odd.items():
        union += pixels if frames[t] is None else -rle_area(frames[t])
    return common / union if union > 0 else 0.0


def _match(
    scores: np.ndarray,
    sizes: np.ndarray,
    ious: np.ndarray,
    tracks: list[Truth],
    bounds: tuple[float, float],
) -> _Matched:
    """Give every candidate, the strongest first, the free track that it overlaps most."""
    low, high = bounds
    outside = np.array([t.crowd or not low <= t.area <= high for t in tracks], bool)
    order = np.argsort(outside, kind="stable").tolist()
    hits = np.zeros((len(_THRESHOLDS), len(scores)), bool)
    ignored = np.zeros_like(hits)
    for at, threshold in enumerate(_THRESHOLDS if len(tracks) else ()):
        taken: set[int] = set()
        for i in range(len(scores)):
            best, chosen = min(float(threshold), 1 - 1e-10), -1
            for j in order:
                if j in taken and not tracks[j].crowd:
                    continue
                if chosen >= 0 and not outside[chosen] and outside[j]:
                    break  # a track that counts was found; those that do not come last
                if ious[i, j] >= best:
                    best, chosen = float(ious[i, j]), j
            if chosen >= 0:
                taken.add(chosen)
                hits[at, i], ignored[at, i] = True, outside[chosen]
    ignored |= ~hits & ~((low <= sizes) & (sizes <= high))
    return _Matched(scores, hits, ignored, int((~outside).sum()))


def _accumulate(clips: list[_Matched], most: int) -> tuple[np.ndarray, np.ndarray] | None:
    objects = sum(clip.objects for clip in clips)
    if not objects:
        return None
    scores = np.concatenate([clip.scores[:most] for clip in clips])
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([clip.hits[:, :most] for clip in clips], 1)[:, order]
    counted = ~np.concatenate([clip.ignored[:, :most] for clip in clips], 1)[:, order]
    right, wrong = (np.cumsum(what & counted, 1).astype(float) for what in (hits, ~hits))
    recall = right / objects
    precision = right / (right + wrong + np.spacing(1))
    # What is found at a recall counts with the best precision from there on.
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    curve = np.zeros((len(_THRESHOLDS), len(_RECALLS)))
    for row, reached, values in zip(curve, recall, best, strict=True):
        places = reached.searchsorted(_RECALLS, "left")
        row[places < len(values)] = values[places[places < len(values)]]
    final = recall[:, -1] if recall.shape[1] else np.zeros(len(_THRESHOLDS))
    return curve, final
