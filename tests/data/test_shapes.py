"""Drawn clips: the same from the same seed, with masks of what can be seen and lasting tracks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mobileinst_deploy.core.masks import iou
from mobileinst_deploy.data import scene, shapes
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.shapes import CLASSES, ShapesClip, clip_seed
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE, write_shapes

SMALL = (64, 96)
CLIPS = [ShapesClip(clip_seed("test", i), 24, (96, 160)) for i in range(40)]


def same(a: shapes.ShapesFrame, b: shapes.ShapesFrame) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 23))
def test_any_seed_gives_a_sound_frame_and_the_same_again(seed, t):
    frame = ShapesClip(seed, 24, SMALL).frame(t)
    k = len(frame.labels)
    assert frame.image.shape == (*SMALL, 3)
    assert frame.image.dtype == np.uint8
    assert frame.masks.shape == (k, *SMALL)
    assert frame.masks.dtype == bool
    assert frame.labels.dtype == frame.track_ids.dtype == np.int64
    assert frame.track_ids.shape == (k,)
    assert len(set(frame.track_ids.tolist())) == k <= scene.MAX_OBJECTS
    assert all(0 <= label < len(CLASSES) for label in frame.labels)
    assert frame.masks.sum(0).max(initial=0) <= 1, "a pixel shows one object"
    assert all(mask.sum() >= 16 for mask in frame.masks)
    assert same(ShapesClip(seed, 24, SMALL).frame(t), frame)


def test_a_frame_does_not_depend_on_those_drawn_before_it():
    clip = ShapesClip(5, 8, SMALL)
    in_order = clip.frames()
    backwards = [clip.frame(t) for t in reversed(range(8))][::-1]
    assert all(same(a, b) for a, b in zip(in_order, backwards, strict=True))


def test_a_longer_clip_begins_with_the_shorter_one():
    assert same(ShapesClip(5, 4, SMALL).frame(3), ShapesClip(5, 40, SMALL).frame(3))


@pytest.mark.parametrize("t", [-1, 8])
def test_a_frame_outside_the_clip_is_an_error(t):
    with pytest.raises(IndexError):
        ShapesClip(0, 8, SMALL).frame(t)


def test_splits_share_no_clip():
    seeds = {clip_seed(split, i) for split in ("train", "val", "test") for i in range(100)}
    assert len(seeds) == 300
    frames = [ShapesClip(clip_seed(split, 0), 1, SMALL).frame(0) for split in ("train", "val")]
    assert not same(*frames)


def test_a_mask_is_what_was_painted_and_hidden_parts_are_not_in_it():
    """Without lens, light and noise, exactly the masks' pixels differ from the background."""
    hidden = 0
    for clip in CLIPS:
        view = clip._view(0)
        bare = shapes._draw_background(clip._scene.background, view, clip.size)
        image, owner = bare.copy(), np.zeros(clip.size, np.uint8)
        alone = []
        for number, shape in enumerate(clip._scene.objects, 1):
            shapes._draw_shape(shape, view, 0, number, image, owner)
            canvas, mine = bare.copy(), np.zeros(clip.size, np.uint8)
            shapes._draw_shape(shape, view, 0, 1, canvas, mine)
            alone.append((canvas, mine.astype(bool)))
        frame = clip.frame(0)
        for mask, track in zip(frame.masks, frame.track_ids.tolist(), strict=True):
            canvas, whole = alone[track]
            in_front = np.zeros(clip.size, bool)
            for _, mine in alone[track + 1 :]:
                in_front |= mine
            assert np.array_equal(mask, whole & ~in_front)
            assert np.array_equal(image[mask], canvas[mask])
            hidden += bool((whole & in_front).any())
        untouched = owner == 0
        assert np.array_equal(image[untouched], bare[untouched])
    assert hidden > 10, "the clips should have occlusions to test"


def test_a_ring_shows_what_is_behind_it():
    outer, inner = scene.outlines()[CLASSES.index("ring")]
    assert np.abs(inner).max() < np.abs(outer).max()
    assert scene.areas()[CLASSES.index("ring")] == pytest.approx(np.pi * (1 - 0.52**2), rel=0.01)


def test_tracks_keep_their_class_and_move_smoothly():
    for clip in CLIPS[:20]:
        classes: dict[int, int] = {}
        before: dict[int, np.ndarray] = {}
        for frame in clip:
            now = dict(zip(frame.track_ids.tolist(), frame.masks, strict=True))
            for track, label in zip(frame.track_ids.tolist(), frame.labels.tolist(), strict=True):
                assert classes.setdefault(track, label) == label
            for track in now.keys() & before.keys():
                if min(now[track].sum(), before[track].sum()) > 600:
                    assert iou(now[track][None], before[track][None])[0, 0] > 0.2
            before = now


def test_objects_leave_return_hide_one_another_and_change_size():
    left = returned = whole_area_varies = empty = 0
    for clip in CLIPS:
        frames = clip.frames()
        empty += sum(len(frame.labels) == 0 for frame in frames)
        for track in {int(i) for frame in frames for i in frame.track_ids}:
            seen = [track in frame.track_ids for frame in frames]
            first, last = seen.index(True), len(seen) - 1 - seen[::-1].index(True)
            left += last < len(seen) - 1
            returned += not all(seen[first : last + 1])
            areas = [f.masks[f.track_ids == track].sum() for f in frames if track in f.track_ids]
            whole_area_varies += max(areas) > 1.3 * min(areas)
    assert left >= 5
    assert returned >= 3
    assert whole_area_varies >= 20
    assert empty < 40 * 24 * 0.1


def test_every_class_and_number_of_objects_occurs():
    frames = [clip.frame(0) for clip in CLIPS]
    assert {int(label) for frame in frames for label in frame.labels} == set(range(len(CLASSES)))
    assert {len(frame.labels) for frame in frames} >= {1, 2, 3, 4, 5}


def test_objects_stand_out_from_what_surrounds_them():
    contrasts = []
    for clip in CLIPS:
        frame = clip.frame(0)
        background = ~frame.masks.any(0)
        for mask in frame.masks:
            difference = frame.image[mask].mean(0) - frame.image[background].mean(0)
            contrasts.append(np.abs(difference).max())
    assert np.quantile(contrasts, 0.05) > 25


def test_written_clips_read_back_as_they_were_drawn(tmp_path):
    write_shapes(tmp_path, "test", 2, 5, SMALL, suffix=".png")
    drawn = [ShapesClip(clip_seed("test", i), 5, SMALL).frames() for i in range(2)]
    clips = AnnotatedSet(tmp_path / FRAMES, tmp_path / YTVIS_FILE, CLASSES, clips=True)
    pictures = AnnotatedSet(tmp_path / FRAMES, tmp_path / COCO_FILE, CLASSES)
    assert not clips.left_out.counts
    assert not pictures.left_out.counts
    assert len(clips) == 2
    assert len(pictures) == 10
    for video, frames in enumerate(drawn):
        numbers: dict[int, int] = {}
        for t, (sample, frame) in enumerate(zip(clips.clip(video), frames, strict=True)):
            for read in (sample, pictures.sample(5 * video + t)):
                assert np.array_equal(read.image, frame.image)
                assert np.array_equal(read.masks, frame.masks)
                assert np.array_equal(read.labels, frame.labels)
            for mine, theirs in zip(sample.track_ids, frame.track_ids, strict=True):
                assert numbers.setdefault(int(theirs), int(mine)) == mine


def test_writing_twice_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_shapes(tmp_path / name, "train", 1, 3, SMALL, first=7)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 3 + 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_annotations_state_boxes_and_areas(tmp_path):
    write_shapes(tmp_path, "test", 1, 2, SMALL)
    document = json.loads((tmp_path / COCO_FILE).read_text())
    frame = ShapesClip(clip_seed("test", 0), 2, SMALL).frame(0)
    mine = [a for a in document["annotations"] if a["image_id"] == 1]
    assert [a["area"] for a in mine] == [int(mask.sum()) for mask in frame.masks]
    assert all(a["bbox"][2] > 0 < a["bbox"][3] for a in mine)
    assert [c["name"] for c in document["categories"]] == list(CLASSES)
