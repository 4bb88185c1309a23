"""Comparing two sides on a clip: it agrees when they do, and says what differs when not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from colour_model import ColourRunner, image

from mobileinst_deploy.core.schedule import Every
from mobileinst_deploy.core.tracker import track_clip
from mobileinst_deploy.pair.drift import compare_tracks, place_failure

CLIP = [image(red=(8, 8 * i), green=(40, 64)) for i in range(7)]


def tracked(model=None, clip_length=3):
    return list(track_clip(model or ColourRunner(), CLIP, Every(clip_length)))


def test_equal_sides_agree_fully():
    agreement = compare_tracks(tracked(), iter(tracked()))
    assert agreement.same_ids
    assert agreement.lowest_iou == 1
    assert agreement.switches == 0
    assert [(d.since, d.frames, d.max_abs) for d in agreement.drift] == [
        (0, 3, 0.0),
        (1, 2, 0.0),
        (2, 2, 0.0),
    ]


def test_an_empty_clip_agrees():
    agreement = compare_tracks([], [])
    assert agreement.same_ids
    assert agreement.lowest_iou == 1


def test_other_identities_are_told_and_no_switch_when_they_stay():
    renamed = [replace(f, ids=f.ids + 5) for f in tracked()]
    agreement = compare_tracks(tracked(), renamed)
    assert not agreement.same_ids
    assert agreement.lowest_iou == 0
    assert agreement.switches == 0


def test_identities_that_trade_places_are_switches():
    swapped = tracked()
    swapped[4:] = [replace(f, mask_logits=f.mask_logits[::-1]) for f in swapped[4:]]
    agreement = compare_tracks(tracked(), swapped)
    assert agreement.switches == 2
    assert [f.switches for f in agreement.frames] == [0, 0, 0, 0, 2, 0, 0]


def test_masks_that_come_apart_since_the_keyframe_show_as_drift():
    drifting = [replace(f, mask_logits=f.mask_logits - 2.0 * f.since) for f in tracked()]
    agreement = compare_tracks(tracked(), drifting)
    assert [d.max_abs for d in agreement.drift] == pytest.approx([0, 2, 4])
    ious = [d.lowest_iou for d in agreement.drift]
    assert ious[0] == 1
    assert ious[0] >= ious[1] >= ious[2]
    assert ious[2] < 1


def test_a_lost_instance_counts_nothing():
    lost = tracked()
    lost[2] = replace(
        lost[2],
        ids=lost[2].ids[:1],
        classes=lost[2].classes[:1],
        mask_logits=lost[2].mask_logits[:1],
    )
    agreement = compare_tracks(tracked(), lost)
    assert agreement.frames[2].lowest_iou == 0
    assert not agreement.frames[2].same_ids


def test_two_empty_masks_agree():
    empty = [replace(f, mask_logits=-np.ones_like(f.mask_logits)) for f in tracked()]
    assert compare_tracks(empty, empty).lowest_iou == 1


def test_clips_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        compare_tracks(tracked(), tracked()[:-1])


class WrongFrame(ColourRunner):
    def frame(self, image):
        outputs = super().frame(image)
        return {**outputs, "mask_logits": outputs["mask_logits"][:, ::-1]}


class WrongMaskHead(ColourRunner):
    def mask_head(self, image, kernels):
        outputs = super().mask_head(image, kernels)
        return {"mask_logits": outputs["mask_logits"] + 20}


class WrongHandOver(ColourRunner):
    def frame(self, image):
        outputs = super().frame(image)
        return {**outputs, "kernels": outputs["kernels"][:, ::-1]}


class OtherOrder(ColourRunner):
    def frame(self, image):
        per_instance = ("class_logits", "objectness_logits", "kernels", "mask_logits")
        return {n: v[:, ::-1] if n in per_instance else v for n, v in super().frame(image).items()}


@pytest.mark.parametrize(("picks", "place"), [(False, "frame graph"), (True, None)])
def test_order_is_a_place_only_of_networks_that_pick_nothing(picks, place):
    found = place_failure(ColourRunner(), OtherOrder(), CLIP[0], CLIP[1], 0.99, picks=picks)
    assert found == place


@pytest.mark.parametrize(
    ("candidate", "place"),
    [
        (ColourRunner(), None),
        (WrongFrame(), "frame graph"),
        (WrongMaskHead(), "mask-head graph"),
        (WrongHandOver(), "hand-over"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_a_failure_is_placed(candidate, place):
    assert place_failure(ColourRunner(), candidate, CLIP[0], CLIP[1], 0.99) == place
