"""Tracking: keyframes, kernel reuse, kernel association, identities that come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from colour_model import CONFIG, KERNELS, ColourRunner, image
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from mobileinst_deploy.core.association import associate, distinct_instances, unit
from mobileinst_deploy.core.contract import TensorSpec
from mobileinst_deploy.core.errors import ConfigError, DeviceError
from mobileinst_deploy.core.graphs import Graphs
from mobileinst_deploy.core.schedule import Every
from mobileinst_deploy.core.tracker import (
    Track,
    Tracker,
    TrackSettings,
    class_scores,
    settings_of,
    track_clip,
)

RED, GREEN, BLUE = {"red": (8, 8)}, {"green": (24, 48)}, {"blue": (40, 96)}


def follow(model, images, clip_length=1, **settings):
    return list(track_clip(model, images, Every(clip_length), TrackSettings(**settings)))


@pytest.mark.parametrize(
    ("clip_length", "since"), [(1, [0] * 7), (3, [0, 1, 2, 0, 1, 2, 0]), (6, [0, 1, 2, 3, 4, 5, 0])]
)
def test_a_keyframe_comes_every_t_frames(clip_length, since):
    model = ColourRunner()
    frames = follow(model, [image(**RED)] * 7, clip_length)
    assert [f.since for f in frames] == since
    assert [f.index for f in frames] == list(range(7))
    assert model.frames == since.count(0)


def test_reuse_frames_get_the_live_kernels_only():
    model = ColourRunner()
    frames = follow(model, [image(**RED, **GREEN)] * 3, 3)
    assert model.kernels_asked == [2, 2]
    np.testing.assert_array_equal(frames[1].mask_logits, frames[0].mask_logits)


def test_masks_follow_an_object_between_keyframes():
    frames = follow(ColourRunner(), [image(red=(8, 8)), image(red=(8, 64))], 3)
    for frame, left in zip(frames, (8, 64), strict=True):
        rows, columns = np.nonzero(frame.mask_logits[0] > 0)
        assert (rows.min(), columns.min()) == (1, left // 8)


def test_without_instances_the_mask_head_is_not_run():
    model = ColourRunner()
    frames = follow(model, [image()] * 3, 3)
    assert model.kernels_asked == []
    assert [f.mask_logits.shape for f in frames] == [(0, 8, 16)] * 3


def test_identities_last_while_kernels_wander():
    model = ColourRunner()
    model.noise = 1.0
    frames = follow(model, [image(**RED, **GREEN, **BLUE)] * 20)
    for frame in frames:
        assert frame.ids.tolist() == [1, 2, 3]
        assert frame.classes.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("hidden", "identity"), [(1, 1), (4, 1), (5, 2), (9, 2)])
def test_an_instance_hidden_no_longer_than_the_memory_gets_its_identity_back(hidden, identity):
    clip = [image(**RED), *[image()] * hidden, image(**RED)]
    frames = follow(ColourRunner(), clip, memory=4)
    assert [f.ids.tolist() for f in frames] == [[1], *[[]] * hidden, [identity]]


def test_a_newcomer_does_not_take_the_identity_of_one_who_left():
    frames = follow(ColourRunner(), [image(**RED), image(**GREEN), image(**RED, **GREEN)])
    assert [f.ids.tolist() for f in frames] == [[1], [2], [1, 2]]


def test_two_queries_on_one_object_make_one_track():
    model = ColourRunner()
    model.objectness[:] = 4.0, 4.0, 4.0, 4.0
    (frame,) = follow(model, [image(**RED)])
    assert len(frame.ids) == 1


def test_the_stronger_of_two_queries_stays_whichever_comes_first():
    model = ColourRunner()
    model.objectness[[0, 3]] = 1.0, 4.0
    (frame,) = follow(model, [image(**RED)])
    assert frame.scores == pytest.approx(np.sqrt(expit(4.0) * expit(4.0)))


@given(st.permutations(range(5)))
def test_identities_do_not_hang_on_the_order_of_nearly_equal_scores(order):
    scores = 0.5 + 1e-7 * np.array(order)
    masks = np.stack([np.eye(5)[i].reshape(1, 5) * 2 - 1 for i in range(5)])
    assert distinct_instances(scores, masks, 0.1, 0.5).tolist() == [0, 1, 2, 3, 4]


def test_score_and_class_are_those_of_the_mean_logits():
    model = ColourRunner()
    model.objectness[3] = -8.0
    tracker = Tracker(model, Every(1))
    for logit in (4.0, 1.0, 2.5):
        model.objectness[0] = logit
        frame = tracker.step(image(**RED))
    assert frame.scores == pytest.approx(np.sqrt(expit(4.0) * expit(2.5)))
    assert tracker.tracks[1].keyframes == 3
    assert tracker.tracks[1].class_scores.shape == (3,)


def test_a_tracks_kernel_is_the_mean_direction_of_its_keyframes():
    track = Track(1, np.array([1.0, 0.0]), np.zeros(3), 0.0)
    track.saw(np.array([0.0, 1.0]), np.zeros(3), 0.0)
    np.testing.assert_allclose(track.kernel, np.sqrt([0.5, 0.5]))
    for _ in range(200):
        track.saw(np.array([-1.0, 0.0]), np.zeros(3), 0.0)
    # It follows, so that an instance may turn into something else to the eye.
    np.testing.assert_allclose(track.kernel, [-1, 0], atol=1e-6)


def test_one_odd_keyframe_does_not_carry_the_kernel_away():
    track = Track(1, np.array([1.0, 0.0]), np.zeros(3), 0.0)
    for _ in range(20):
        track.saw(np.array([1.0, 0.0]), np.zeros(3), 0.0)
    track.saw(np.array([0.0, 1.0]), np.zeros(3), 0.0)
    assert track.kernel[0] > 0.99


def test_a_weak_keyframe_continues_a_track_but_starts_none():
    # expit(4) * expit(-2) has the root 0.34: below the score of 0.5, above its half.
    strong, weak = ColourRunner(), ColourRunner()
    weak.objectness[:] = -2.0
    assert follow(weak, [image(**RED)], score=0.5)[0].ids.tolist() == []
    tracker = Tracker(strong, Every(1), TrackSettings(score=0.5))
    tracker.step(image(**RED))
    strong.objectness[:] = -2.0
    assert tracker.step(image(**RED)).ids.tolist() == [1]
    # Weak for long, its mean falls below the score: it is hidden, and still remembered.
    hidden = [tracker.step(image(**RED)).ids.tolist() for _ in range(8)]
    assert hidden[-1] == []
    strong.objectness[:] = 4.0
    assert [tracker.step(image(**RED)).ids.tolist() for _ in range(12)][-1] == [1]


def test_a_query_without_a_single_mask_pixel_is_no_instance():
    scores, masks = np.array([0.9, 0.8]), np.full((2, 4, 4), -1.0)
    masks[1, 0, 0] = 1.0
    assert distinct_instances(scores, masks, 0.1, 0.5).tolist() == [1]


def test_kernels_are_handed_over_as_the_network_made_them():
    class Watch(ColourRunner):
        def mask_head(self, image, kernels):
            np.testing.assert_array_equal(kernels[0], KERNELS[[0, 1]])
            return super().mask_head(image, kernels)

    follow(Watch(), [image(**RED, **GREEN)] * 2, 2)


kernels_of = st.integers(0, 6).flatmap(
    lambda n: arrays(np.float64, (n, 3), elements=st.floats(-1, 1, width=32))
)


@given(kernels_of, kernels_of, st.floats(-0.9, 0.9))
def test_association_is_one_to_one_and_only_of_similar_kernels(known, found, similarity):
    known, found = unit(known), unit(found)
    match = associate(known, found, similarity)
    taken = match[match >= 0]
    assert len(set(taken.tolist())) == len(taken)
    for i, which in enumerate(match):
        if which >= 0:
            assert found[i] @ known[which] > similarity


def test_association_takes_the_best_total_not_the_best_pair():
    angles = np.deg2rad([0, 30])
    known = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    angles = np.deg2rad([14, -40])
    found = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # 14 degrees is nearest to 0, but then -40 would be left with 30.
    assert associate(known, found, 0.5).tolist() == [1, 0]


def test_a_hopeless_pair_pushes_no_good_pair_aside():
    known = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = unit(np.array([[0.9, 0.1], [-1.0, -0.1]]))
    assert associate(known, found, 0.5).tolist() == [0, -1]


def test_where_a_track_was_speaks_for_it_beside_its_kernel():
    known = np.array([[1.0, 0.0]])
    turned = unit(np.array([[0.3, 1.0]]))
    assert associate(known, turned, 0.5).tolist() == [-1]
    assert associate(known, turned, 0.5, np.array([[0.6]])).tolist() == [0]


def test_kernels_decide_where_masks_do_not():
    known = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = unit(np.array([[1.0, 0.3], [0.3, 1.0]]))
    assert associate(known, found, 0.5, np.full((2, 2), 0.4)).tolist() == [0, 1]


class Turning(ColourRunner):
    """At every second keyframe another query finds the object: its kernel points elsewhere."""

    def frame(self, image):
        out = super().frame(image)
        if self.frames % 2 == 0:
            out["kernels"] = -out["kernels"]
        return out


@pytest.mark.parametrize(
    ("overlap", "second", "ids"),
    [(2.0, (8, 8), [1, 1]), (2.0, (40, 96), [1, 2]), (0.0, (8, 8), [1, 2])],
    ids=["in its place", "elsewhere", "asked of kernels alone"],
)
def test_an_object_that_another_query_finds_keeps_its_identity(overlap, second, ids):
    clip = [image(red=(8, 8)), image(red=second)]
    frames = follow(Turning(), clip, overlap=overlap)
    assert [f.ids.tolist() for f in frames] == [[i] for i in ids]


def test_a_track_is_looked_for_where_the_frame_before_showed_it():
    """Not where its keyframe did: between keyframes it moves."""
    clip = [image(red=(8, 8)), image(red=(8, 64)), image(red=(8, 64))]
    assert [f.ids.tolist() for f in follow(Turning(), clip, 2, overlap=2.0)] == [[1], [1], [1]]


def test_scores_combine_class_and_objectness():
    scores = class_scores(np.array([[0.0, 100.0]]), np.array([[0.0]]))
    np.testing.assert_allclose(scores, [[0.5, np.sqrt(0.5)]])
    assert class_scores(np.full((1, 1), -1e4), np.zeros((1, 1))) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": 1.5},
        {"score": float("nan")},
        {"memory": -1},
        {"similarity": -2},
        {"keep": 2},
        {"overlap": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        TrackSettings(**wrong)


class TestGraphs:
    def test_fills_a_fixed_number_of_kernels_and_drops_what_they_gave(self):
        runner = ColourRunner(dynamic_kernels=False)
        frames = follow(runner, [image(**RED, **GREEN)] * 2, 2)
        assert runner.kernels_asked == [CONFIG.num_queries]
        assert frames[1].mask_logits.shape == (2, 8, 16)

    def test_hands_a_reuse_frame_whatever_its_graph_takes_of_the_keyframe(self):
        class WithContext(ColourRunner):
            """Its mask head also takes what its frame graph says of the whole picture."""

            def __init__(self):
                super().__init__()
                context = TensorSpec("context", "float32", (1, 7))
                frame, head = self.specs["frame"], self.specs["mask_head"]
                self.specs = {
                    "frame": replace(frame, outputs=(*frame.outputs, context)),
                    "mask_head": replace(head, inputs=(*head.inputs, context)),
                }
                self.given = []

            def frame(self, image):
                context = np.full((1, 7), self.frames, np.float32)
                return {**super().frame(image), "context": context}

            def mask_head(self, image, kernels, context):
                self.given.append(float(context.mean()))
                return super().mask_head(image, kernels)

        runner = WithContext()
        follow(runner, [image(**RED)] * 6, 3)
        assert runner.given == [0, 0, 1, 1]

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda out: out.pop("kernels"),
            lambda out: out.update(kernels=out["kernels"] * np.nan),
            lambda out: out.update(kernels=out["kernels"].astype(np.float64)),
            lambda out: out.update(mask_logits=out["mask_logits"][:, :2]),
        ],
        ids=["missing", "nan", "dtype", "shape"],
    )
    def test_believes_nothing_that_the_graph_cannot_have_made(self, spoil):
        class Broken(ColourRunner):
            def frame(self, image):
                outputs = super().frame(image)
                spoil(outputs)
                return outputs

        with pytest.raises(DeviceError, match="fake returned no usable"):
            Graphs(Broken()).frame(image(**RED))


def test_the_default_association_is_the_default_of_the_settings():
    assert settings_of("remembering") == TrackSettings()


def test_consecutive_association_knows_the_last_keyframe_only():
    """The paper's: a keyframe that misses an instance ends its track, ours goes on."""
    there, away = image(**RED), image()
    clip = [there, away, there]
    ids = {
        kind: [
            f.ids.tolist() for f in track_clip(ColourRunner(), clip, Every(1), settings_of(kind))
        ]
        for kind in ("remembering", "consecutive")
    }
    assert ids == {"remembering": [[1], [], [1]], "consecutive": [[1], [], [2]]}


def test_consecutive_association_compares_with_the_last_kernel_alone():
    track = Track(1, np.array([1.0, 0.0]), np.zeros(3), 0.0)
    track.saw(np.array([0.0, 1.0]), np.zeros(3), 0.0, settings_of("consecutive").remembered)
    assert track.kernel.tolist() == [0.0, 1.0]


def test_consecutive_association_keeps_what_overlaps():
    masks = np.full((2, 4, 4), -1.0)
    masks[0, :2], masks[1, :2] = 1.0, 1.0
    masks[1, 2, 0] = 1.0
    iou = settings_of("consecutive").duplicate_iou
    assert distinct_instances(np.array([0.9, 0.8]), masks, 0.1, iou).tolist() == [0, 1]


def test_another_association_is_refused():
    with pytest.raises(ConfigError, match="no association 'hungarian'"):
        settings_of("hungarian")
