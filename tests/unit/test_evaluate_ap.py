"""Average precision agrees to six digits with pycocotools, and for tracks with TrackEval."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mobileinst_deploy.core.masks import encode, rle_area, side_by_side
from mobileinst_deploy.data.shapes import CLASSES, ShapesClip
from mobileinst_deploy.measure.average_precision import (
    PICTURE_METRICS,
    AveragePrecision,
    Candidate,
    Truth,
)
from mobileinst_deploy.measure.track_precision import CLIP_METRICS, TrackPrecision

#: Where pycocotools keeps what we report, in its list of twelve.
PLACES = dict(zip(PICTURE_METRICS, range(9), strict=True))


class Item(NamedTuple):
    """A picture or clip: its size, what is there and what was found, frame by frame."""

    size: tuple[int, int]
    truth: list[tuple[int, list[np.ndarray], bool]]
    found: list[tuple[dict[int, float], list[np.ndarray]]]


def joined(masks: list[np.ndarray]) -> Any:
    frames = [encode(mask) if mask.any() else None for mask in masks]
    return side_by_side(frames, masks[0].shape)


def some_items(
    seed: int, frames: int, count: int = 6, scale: int = 1, crowds: bool = True
) -> list[Item]:
    """Drawn clips and what an unsure model might find in them: shifted, doubled, misnamed."""
    rng = np.random.default_rng(seed)
    items = []
    for index in range(count):
        size = (64 * scale, 96 * scale)
        drawn = ShapesClip((seed, index), 40, size).frames()[::7][:frames]
        tracks: dict[int, tuple[int, list[np.ndarray]]] = {}
        for t, frame in enumerate(drawn):
            for track, label, mask in zip(frame.track_ids, frame.labels, frame.masks, strict=True):
                blank = [np.zeros(size, bool) for _ in range(frames)]
                tracks.setdefault(int(track), (int(label), blank))[1][t] = mask
        truth = [
            (label, masks, crowds and bool(rng.random() < 0.15)) for label, masks in tracks.values()
        ]
        found = []
        for label, masks, _ in truth * 3:
            shift = rng.integers(-2, 3, 2) * scale
            moved = [np.roll(mask, shift, (0, 1)) for mask in masks]
            if frames > 1 and rng.random() < 0.3:
                moved[int(rng.integers(frames))] = np.zeros(size, bool)
            name = label if rng.random() < 0.8 else int(rng.integers(len(CLASSES)))
            # Few digits, so that scores tie.
            scores = {name: float(rng.random().__round__(1))}
            scores.setdefault((name + 1) % len(CLASSES), float(rng.random()))
            if any(mask.any() for mask in moved):
                found.append((scores, moved))
        items.append(Item(size, truth, found))
    return items


def ours(items: list[Item], names: tuple[str, ...]) -> dict[str, float | None]:
    precision = TrackPrecision(CLASSES) if names == CLIP_METRICS else AveragePrecision(CLASSES)
    for item in items:
        truth = [
            Truth(label, joined(masks), mean_area(masks), crowd)
            for label, masks, crowd in item.truth
        ]
        found = [Candidate(joined(masks), tuple(scores.items())) for scores, masks in item.found]
        precision.add(item.size, truth, found)
    return precision.metrics(names)


def mean_area(masks: list[np.ndarray]) -> float:
    areas = [int(mask.sum()) for mask in masks if mask.any()]
    return sum(areas) / max(len(areas), 1)


def of_pycocotools(items: list[Item]) -> np.ndarray:
    images, annotations, results = [], [], []
    for number, item in enumerate(items, 1):
        images.append({"id": number, "height": item.size[0], "width": item.size[1]})
        for label, masks, crowd in item.truth:
            rle = joined(masks)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "segmentation": rle,
                    "area": rle_area(rle),
                    "bbox": [0, 0, 1, 1],
                    "iscrowd": int(crowd),
                }
            )
        for scores, masks in item.found:
            for label, score in scores.items():
                results.append(
                    {
                        "image_id": number,
                        "category_id": label + 1,
                        "segmentation": joined(masks),
                        "score": score,
                    }
                )
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # pycocotools still speaks numpy 1's protocol.
        warnings.simplefilter("ignore", DeprecationWarning)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.array(evaluation.stats)


@pytest.mark.parametrize(("seed", "scale"), [(0, 1), (1, 1), (2, 3)])
def test_picture_ap_is_that_of_pycocotools(seed, scale):
    items = some_items(seed, frames=1, scale=scale)
    mine, theirs = ours(items, PICTURE_METRICS), of_pycocotools(items)
    assert 0.05 < theirs[0] < 0.95
    for name, place in PLACES.items():
        expected = theirs[place] if theirs[place] >= 0 else None
        assert mine[name] == (None if expected is None else pytest.approx(expected, abs=5e-7))


@pytest.mark.parametrize("seed", range(2))
def test_track_ap_is_that_of_pycocotools_on_frames_side_by_side(seed):
    """But for regions of many objects and sizes, for which YouTube-VIS has rules of its own."""
    items = some_items(seed, frames=4, crowds=False)
    mine, theirs = ours(items, CLIP_METRICS), of_pycocotools(items)
    assert 0.05 < theirs[0] < 0.95
    for name in set(CLIP_METRICS) - {"APs", "APm", "APl"}:
        assert mine[name] == pytest.approx(theirs[PLACES[name]], abs=5e-7)


def square(size: tuple[int, int], *sides: int) -> list[np.ndarray]:
    """A square at the upper left corner, of another side in every frame; 0 is none."""
    masks = [np.zeros(size, bool) for _ in sides]
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = True
    return masks


def one_class(truth: list[Truth], *found: tuple[list[np.ndarray], float]) -> TrackPrecision:
    precision = TrackPrecision(["thing"])
    candidates = [Candidate(joined(masks), ((0, score),)) for masks, score in found]
    precision.add((64, 64), truth, candidates)
    return precision


def there(masks: list[np.ndarray], **changes: Any) -> Truth:
    return Truth(0, joined(masks), mean_area(masks), **{"crowd": False, **changes})


def test_a_track_inside_a_region_of_many_is_wrong_unless_it_covers_it():
    """COCO would take a part of the region for found; YouTube-VIS asks for the IoU there, too."""
    size, thing = (64, 64), there(square((64, 64), 8, 8))
    region = there(square(size, 40, 40), crowd=True)
    inside, whole = square(size, 20, 20), square(size, 38, 38)
    found = (square(size, 8, 8), 0.5)
    assert one_class([thing, region], (inside, 0.9), found).metrics(["AP"])["AP"] == pytest.approx(
        0.5, abs=0.01
    )
    both = one_class([thing, region], (whole, 0.9), (whole, 0.8), found)
    assert both.metrics(["AP50"])["AP50"] == pytest.approx(1)


def test_a_track_that_no_frame_shows_is_missed():
    size = (64, 64)
    thing, unseen = there(square(size, 9, 9)), there(square(size, 0, 0))
    precision = one_class([thing, unseen], (square(size, 9, 9), 0.9))
    assert precision.metrics(["AR10"])["AR10"] == 0.5
    assert precision.objects == 2


@pytest.mark.parametrize(
    ("second", "overlap"),
    [(0, 100 / 150), (30, 1.0)],
    ids=["missed, it counts", "found, it does not"],
)
def test_a_frame_of_another_size_counts_only_where_nothing_was_found(second, overlap):
    size = (64, 64)
    thing = there(square(size, 10, 0), odd={1: 50})
    metrics = one_class([thing], (square(size, 10, second), 0.9)).metrics(["AR1"])
    assert metrics["AR1"] == pytest.approx((np.arange(0.5, 0.951, 0.05) <= overlap + 1e-9).mean())


@pytest.mark.parametrize(
    ("sides", "name"), [((128, 128), "APs"), ((129, 127), "APm"), ((300, 0), "APl")]
)
def test_a_tracks_size_is_the_mean_of_the_frames_that_show_it(sides, name):
    size = (320, 320)
    masks = square(size, *sides)
    precision = TrackPrecision(["thing"])
    precision.add(size, [there(masks)], [Candidate(joined(masks), ((0, 0.9),))])
    expected = {n: pytest.approx(1) if n == name else None for n in ("APs", "APm", "APl")}
    if name == "APs":  # 128 squared is the bound of both
        expected["APm"] = pytest.approx(1)
    assert precision.metrics(list(expected)) == expected


@pytest.mark.parametrize("seed", range(2))
def test_track_ap_is_that_of_trackeval(seed, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("trackeval")
    # TrackEval has its own way with crowds, which YouTube-VIS does not have.
    items = some_items(seed, frames=4, crowds=False)
    mine = ours(items, CLIP_METRICS)
    for limit, names in ((0, ("AP", "AP50", "AP75")), (1, ("AR1",)), (10, ("AR10",))):
        theirs = of_trackeval(items, tmp_path / str(limit), limit)
        for name in names:
            assert mine[name] == pytest.approx(theirs[name], abs=5e-7), name


def of_trackeval(items: list[Item], folder: Path, limit: int) -> dict[str, float]:
    """TrackEval's YouTubeVIS and TrackMAP, averaged over the classes that occur."""
    from trackeval.datasets import YouTubeVIS
    from trackeval.metrics import TrackMAP

    videos, annotations, results = [], [], []
    for number, item in enumerate(items, 1):
        size = {"height": item.size[0], "width": item.size[1]}
        frames = len(item.truth[0][1])
        names = [f"{number:03d}/{t}.jpg" for t in range(frames)]
        videos.append({"id": number, "file_names": names, **size})
        for label, masks, crowd in item.truth:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": number,
                    "category_id": label + 1,
                    "iscrowd": int(crowd),
                    "segmentations": [plain(mask) for mask in masks],
                    "areas": [int(mask.sum()) or None for mask in masks],
                    **size,
                }
            )
        for scores, masks in item.found:
            for label, score in scores.items():
                results.append(
                    {
                        "video_id": number,
                        "category_id": label + 1,
                        "score": score,
                        "segmentations": [encode(m) if m.any() else None for m in masks],
                    }
                )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    truth = {"videos": videos, "annotations": annotations, "categories": categories}
    for path, document in (
        (folder / "gt" / "youtube_vis_all" / "gt.json", truth),
        (folder / "found" / "youtube_vis_all" / "ours" / "data" / "found.json", results),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()):
        data = YouTubeVIS(
            {
                "GT_FOLDER": f"{folder}/gt/",
                "TRACKERS_FOLDER": f"{folder}/found/",
                "SPLIT_TO_EVAL": "all",
                "PRINT_CONFIG": False,
            }
        )
        # TrackEval takes a ground truth that was matched by track 0 for one not matched yet.
        data.global_tid_counter = 1
        metric = TrackMAP(
            {
                "USE_AREA_RANGES": False,
                "USE_TIME_RANGES": False,
                "MAX_DETECTIONS": limit,
                "PRINT_CONFIG": False,
            }
        )
        raw = {name: data.get_raw_seq_data("ours", name) for name in data.seq_list}
        per_class = []
        for name in CLASSES:
            sequences = {
                s: metric.eval_sequence(data.get_preprocessed_seq_data(raw[s], name)) for s in raw
            }
            combined = metric.combine_sequences(sequences)
            if combined["AP_all"][0] >= 0:
                per_class.append((combined["AP_all"], combined["AR_all"]))
    ap, ar = np.mean(per_class, axis=0)
    recall = {f"AR{limit}": float(ar.mean())} if limit else {}
    return {"AP": float(ap.mean()), "AP50": float(ap[0]), "AP75": float(ap[5]), **recall}


def plain(mask: np.ndarray) -> dict[str, Any] | None:
    from mobileinst_deploy.core.masks import rle_runs

    if not mask.any():
        return None
    rle = encode(mask)
    return {"size": rle["size"], "counts": rle_runs(rle).tolist()}


def test_finding_everything_exactly_is_worth_one():
    items = [
        Item(i.size, [(c, m, False) for c, m, _ in i.truth], [({c: 0.9}, m) for c, m, _ in i.truth])
        for i in some_items(0, frames=2)
    ]
    assert ours(items, CLIP_METRICS)["AP"] == pytest.approx(1)


def test_finding_nothing_is_worth_zero():
    items = [item._replace(found=[]) for item in some_items(0, frames=1)]
    assert ours(items, PICTURE_METRICS)["AP"] == 0


def test_with_nothing_to_find_there_is_no_figure():
    precision = AveragePrecision(CLASSES)
    precision.add((8, 8), [], [Candidate(encode(np.ones((8, 8), bool)), ((0, 0.5),))])
    assert precision.objects == 0
    assert precision.metrics(PICTURE_METRICS) == dict.fromkeys(PICTURE_METRICS)
    assert precision.per_class() == dict.fromkeys(CLASSES)


def test_every_class_has_its_own_figure():
    precision = AveragePrecision(("a", "b", "c"))
    left, right = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    left[:, :4], right[:, 4:] = True, True
    truth = [Truth(0, encode(left), 32, False), Truth(1, encode(right), 32, False)]
    precision.add((8, 8), truth, [Candidate(encode(left), ((0, 0.9), (1, 0.8)))])
    assert precision.per_class() == {"a": pytest.approx(1), "b": 0, "c": None}
    assert precision.objects == 2


@pytest.mark.parametrize("processes", [2, 3])
def test_pictures_shared_between_processes_have_the_ap_of_one(processes):
    items = some_items(0, frames=1)
    parts = [AveragePrecision(CLASSES) for _ in range(processes)]
    for number, item in enumerate(items):
        truth = [Truth(c, joined(m), mean_area(m), crowd) for c, m, crowd in item.truth]
        found = [Candidate(joined(m), tuple(scores.items())) for scores, m in item.found]
        parts[number % processes].add(item.size, truth, found, number=number)
    whole = AveragePrecision.of_states(CLASSES, [part.state() for part in parts])
    assert whole.objects == sum(len(item.truth) for item in items)
    assert whole.metrics(PICTURE_METRICS) == ours(items, PICTURE_METRICS)
