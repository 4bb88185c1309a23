"""Schedules: every T-th frame, or a keyframe when the scene asks for one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from colour_model import ColourRunner, image

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.schedule import Auto, Every, mask_certainty, parse_schedule
from mobileinst_deploy.core.tracker import track_clip

STILL = image(red=(8, 8))
OTHER = 255 - STILL


def keyframes(images, schedule=None) -> list[int]:
    frames = track_clip(ColourRunner(), images, schedule or Auto(longest=5))
    return [frame.index for frame in frames if frame.keyframe]


def test_a_still_scene_gets_a_keyframe_only_when_the_longest_clip_is_over():
    assert keyframes([STILL] * 11) == [0, 5, 10]


def test_a_cut_gets_a_keyframe_at_once():
    assert keyframes([STILL] * 3 + [OTHER] * 4) == [0, 3]


def test_a_slow_change_gets_one_when_it_adds_up():
    fading = [np.maximum(STILL - 3.0 * i, 0) for i in range(10)]
    found = keyframes(fading, Auto(longest=100, change=8.0))
    assert found[0] == 0
    assert len(found) > 1
    assert all(2 <= b - a <= 4 for a, b in pairwise(found))


def test_masks_that_lose_their_edge_call_for_one():
    schedule = Auto(longest=100)
    sharp, blurred = np.full((1, 8, 16), 4.0), np.full((1, 8, 16), 1.0)
    assert schedule.wants_keyframe(STILL, None)
    schedule.observe(0, sharp)
    assert not schedule.wants_keyframe(STILL, 0)
    schedule.observe(1, blurred)
    assert schedule.wants_keyframe(STILL, 1)
    schedule.observe(0, blurred)
    assert not schedule.wants_keyframe(STILL, 0)


def test_a_scene_without_instances_asks_for_no_more_keyframes():
    assert keyframes([image()] * 10) == [0, 5]


def test_a_schedule_begins_anew_with_each_clip():
    schedule = Auto(longest=5)
    assert keyframes([STILL] * 7, schedule) == keyframes([STILL] * 7, schedule) == [0, 5]


def test_certainty_is_how_far_pixels_are_from_the_threshold():
    assert mask_certainty(np.empty((0, 8, 16))) == 0
    assert mask_certainty(np.full((1, 8, 16), -3.0)) == 0
    assert mask_certainty(np.full((1, 8, 16), 100.0)) == pytest.approx(1)
    assert mask_certainty(np.array([[[2.0, -9.0]]])) == pytest.approx(np.tanh(1.0))


@pytest.mark.parametrize("t", [1, 2, 6])
def test_every_t_frames(t):
    assert keyframes([STILL] * 7, Every(t)) == list(range(0, 7, t))


def test_schedules_by_name():
    assert parse_schedule("3").name == "3"
    assert parse_schedule("auto").name == "auto"
    assert parse_schedule("auto") is not parse_schedule("auto")


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "", "often", "\N{ARABIC-INDIC DIGIT THREE}"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ConfigError, match="is neither auto nor"):
        parse_schedule(text)
