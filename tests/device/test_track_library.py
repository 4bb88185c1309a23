"""The tracker's C++ library, natively, under sanitizers.

``core/tracker.py`` and ``core/schedule.py`` are the specification; identities, classes, masks and
keyframes must be their own. ``follow_clips.py`` beside this is the long round.
"""

from __future__ import annotations

import subprocess

import native
import numpy as np
import pytest
from follow_clips import draw
from hypothesis import example, given, strategies as st
from scipy.optimize import linear_sum_assignment
from track_checker import (
    FAST,
    FRAME_OUTPUTS,
    Checker,
    Clip,
    Noise,
    follow_both,
    opening,
    packed,
)

from mobileinst_deploy.core.tracker import TrackSettings


def test_a_checker_that_fell_out_of_step_starts_anew(checker: Checker):
    def fail_half_way() -> None:
        with checker.conversation():
            checker.send(b"assign 1 1 0\nassign 1 2 0 1\n")
            assert checker.hear() == "1 "

    with pytest.raises(AssertionError):
        fail_half_way()
    assert checker.say("assign 1 2 1 0") == "1 "


def test_the_long_round_draws_clips_that_can_be_followed(checker: Checker):
    rng = np.random.default_rng(0)
    for _ in range(20):
        follow_both(checker, draw(rng))


class TestAssignment:
    @given(st.integers(0, 2**32), st.integers(1, 9), st.integers(0, 9), st.integers(1, 1000))
    @FAST
    def test_is_scipys_own_ties_included(
        self, checker: Checker, seed: int, rows: int, more: int, values: int
    ):
        cost = np.random.default_rng(seed).integers(0, values, (rows, rows + more))
        got = checker.say(f"assign {rows} {rows + more} {' '.join(map(str, cost.ravel()))}")
        assert got.split() == [str(column) for column in linear_sum_assignment(cost)[1]]

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308"])
    def test_ends_whatever_the_costs_are(self, checker: Checker, value: str):
        checker.say("assign 3 4 " + " ".join([value] * 12))
        checker.say("assign 2 2 0 " + " ".join([value] * 3))


clips = st.builds(
    Clip,
    seed=st.integers(0, 2**32),
    sizes=st.tuples(*(st.integers(1, 7) for _ in range(5))),
    clip_length=st.integers(1, 4),
    picture=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
    settings=st.builds(
        TrackSettings,
        score=st.sampled_from([0.0, 0.3, 0.5]),
        keep=st.sampled_from([0.0, 0.5, 1.0]),
        similarity=st.sampled_from([-1.0, 0.0, 0.2, 0.7]),
        memory=st.integers(0, 3),
        duplicate_iou=st.sampled_from([0.1, 0.6, 1.0]),
        remembered=st.sampled_from([1, 2, 10]),
        overlap=st.sampled_from([0.0, 0.6, 2.0]),
    ),
    auto=st.none() | st.tuples(st.sampled_from([0.0, 3.0, 60.0]), st.sampled_from([0.0, 0.9, 1.0])),
    plain=st.booleans(),
)


EVERYTHING = TrackSettings(0.0, 0.0, -1.0, 0, 1.0)


@given(clips)
@example(Clip(0, (7, 2, 3, 4, 5), settings=EVERYTHING))
@example(Clip(1, (7, 2, 3, 1, 2), 4, settings=EVERYTHING, auto=(3.0, 0.9)))
@example(Clip(12186, (7, 2, 1, 4, 4), 1, None, TrackSettings(0.5, 0.0, 0.2, 0, 0.6), (60.0, 1.0)))
@FAST
def test_the_library_follows_any_clip_as_the_specification_does(checker: Checker, clip: Clip):
    follow_both(checker, clip)


class TestRareClips:
    """What random numbers hardly ever make, and people do."""

    @pytest.mark.parametrize("similarity", [-1.0, 0.0, 0.5])
    @pytest.mark.parametrize("width", [1, 2, 3, 9])
    def test_equal_opposite_and_zero_kernels(self, checker: Checker, width: int, similarity: float):
        for seed in range(10):
            settings = TrackSettings(0.0, 0.0, similarity, 3, 1.0)
            follow_both(checker, Clip(seed, (7, 2, width, 3, 4), settings=settings, plain=True))

    @pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
    def test_equal_scores_and_scores_at_the_threshold(self, checker: Checker, score: float):
        for seed in range(10):
            settings = TrackSettings(score, 1.0, 0.5, 3, 0.5)
            follow_both(checker, Clip(seed, (7, 1, 3, 3, 4), settings=settings, plain=True))

    def test_scores_that_saturate(self, checker: Checker):
        """From a logit of 17 up, a float32 score is 1 or the last number before it."""
        for seed in range(20):
            rng = np.random.default_rng(seed)
            kernels = rng.normal(size=(1, 6, 4)).astype(np.float32)
            outputs = {
                "class_logits": rng.uniform(14, 40, (1, 6, 2)).astype(np.float32),
                "objectness_logits": rng.uniform(14, 40, (1, 6, 1)).astype(np.float32),
                "kernels": kernels,
                "mask_logits": np.ones((1, 6, 2, 2), np.float32),
            }
            follow_both(checker, Clip(seed, (6, 2, 4, 2, 2)), frame=lambda o=outputs: o)

    @pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-12, 1e19, 1e29])
    def test_kernels_of_any_length(self, checker: Checker, size: float):
        outputs = Noise(3, 6, 2, 4, (2, 3), plain=False).frame()
        scaled = outputs | {"kernels": (outputs["kernels"] * size).astype(np.float32)}
        follow_both(checker, Clip(0, (6, 2, 4, 2, 3), settings=EVERYTHING), frame=lambda: scaled)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.1e30, -3e38])
    @pytest.mark.parametrize(
        "name", ["class_logits", "objectness_logits", "kernels", "mask_logits"]
    )
    def test_a_frame_with_values_that_no_network_gives_is_not_taken(
        self, checker: Checker, name: str, value: float
    ):
        clip = Clip(0, (2, 2, 2, 1, 1))
        outputs = dict(Noise(0, 2, 2, 2, (1, 1), plain=True).frame())
        outputs[name] = np.full_like(outputs[name], value)
        with checker.conversation():
            checker.send(opening(clip, 1, (1, 1)))
            assert checker.hear() == "keyframe"
            checker.send(packed(outputs[k] for k in FRAME_OUTPUTS))
            assert checker.hear() == f"{NOT_FINITE} -1"


NOT_FINITE = 3


def test_the_example_follows_its_square():
    done = subprocess.run(
        [native.program("track_example")], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"frame {i}" for i in range(7)]
    assert all("#1 class 1 0.99" in line for line in lines)
    assert len({line.split()[-1] for line in lines}) == 7, "the square moves"
