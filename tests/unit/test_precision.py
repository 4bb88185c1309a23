"""Average precision of models that know everything, nothing, or all of it wrongly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracle import CLIPS, CONFIG, LENGTH, SIZE, Oracle, on_clips, on_pictures, subject

from mobileinst_deploy.core.contract import graph_specs
from mobileinst_deploy.core.errors import ConfigError, DatasetError
from mobileinst_deploy.core.masks import decode
from mobileinst_deploy.data.shapes import CLASSES, ShapesClip, clip_seed
from mobileinst_deploy.data.shapes_files import write_shapes
from mobileinst_deploy.measure.average_precision import PICTURE_METRICS
from mobileinst_deploy.measure.track_precision import CLIP_METRICS
from mobileinst_deploy.workflows.search import MOST_FOUND, find_in_clip, find_in_picture


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, "test", CLIPS, LENGTH, SIZE, suffix=".png")
    return folder


def test_a_model_that_knows_every_picture_has_full_ap(data, tmp_path):
    block = on_pictures(data, tmp_path)
    assert block.metrics["AP"] == pytest.approx(1)
    assert set(block.metrics) == set(PICTURE_METRICS)
    assert (block.items, block.frames, block.keyframes) == (18, 18, 18)
    assert set(block.per_class) == set(CLASSES)
    assert block.skipped == {}


def test_naming_everything_wrongly_costs_most_of_it(data, tmp_path):
    """Not all: the right name is among the best hundred pairs, behind the wrong one."""
    block = on_pictures(data, tmp_path, subject(Oracle(misname=True)))
    assert 0.05 < block.metrics["AP"] < 0.5


def test_looking_past_everything_costs_all_of_it(data, tmp_path):
    block = on_pictures(data, tmp_path, subject(Oracle(inside_out=True)))
    assert block.metrics["AP"] < 0.01


def test_tracks_known_in_every_frame_have_full_ap(data, tmp_path):
    block = on_clips(data, tmp_path, "1")
    assert tuple(block.metrics) == CLIP_METRICS
    assert block.metrics["AP"] == block.metrics["AR10"] == pytest.approx(1)
    assert (block.items, block.frames, block.keyframes) == (CLIPS, 18, 18)


def test_kernel_reuse_costs_keyframes_and_keeps_tracks(data, tmp_path):
    block = on_clips(data, tmp_path, "3")
    assert block.keyframes == CLIPS * 2
    assert block.metrics["AP"] > 0.8
    assert block.settings["schedule"] == "3"


def test_auto_is_a_schedule(data, tmp_path):
    block = on_clips(data, tmp_path, "auto")
    assert CLIPS <= block.keyframes <= 18


def test_a_schedule_that_is_none_is_refused(data, tmp_path):
    with pytest.raises(ConfigError):
        on_clips(data, tmp_path, "0")


def test_masks_come_back_at_the_pictures_own_size():
    frame = ShapesClip(clip_seed("test", 0), LENGTH, SIZE).frame(0)
    found = find_in_picture(subject(), frame.image)
    best = [c for c in found.candidates if max(s for _, s in c.scores) > 0.9]
    assert len(best) == len(frame.labels)
    for candidate in best:
        mask = decode(candidate.mask)
        assert any(np.array_equal(mask, truth) for truth in frame.masks)


class Everything(Oracle):
    """Finds everything everywhere."""

    specs = graph_specs(replace(CONFIG, num_queries=40))

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        n = 40
        return {
            "class_logits": rng.normal(size=(1, n, len(CLASSES))).astype(np.float32),
            "objectness_logits": np.zeros((1, n, 1), np.float32),
            "kernels": rng.normal(size=(1, n, CONFIG.width)).astype(np.float32),
            "mask_logits": np.ones((1, n, 8, 16), np.float32),
        }


def test_only_the_best_hundred_of_a_picture_count():
    image = np.zeros((*SIZE, 3), np.uint8)
    found = find_in_picture(subject(Everything()), image).candidates
    scores = [score for candidate in found for _, score in candidate.scores]
    assert len(scores) == MOST_FOUND
    outputs = Everything().frame(image)
    every = np.sqrt(1 / (1 + np.exp(-outputs["class_logits"])) * 0.5).ravel()
    assert min(scores) == pytest.approx(np.sort(every)[-MOST_FOUND], abs=1e-6)


class Nothing(Everything):
    """Finds nothing anywhere."""

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = dict(super().frame(image))
        outputs["mask_logits"] = -outputs["mask_logits"]
        return outputs


def test_empty_masks_are_not_found():
    image = np.zeros((*SIZE, 3), np.uint8)
    assert find_in_picture(subject(Nothing()), image).candidates == []
    assert find_in_clip(subject(Nothing()), [image] * 3, SIZE, "2").candidates == []


def test_progress_counts_pictures(data, tmp_path):
    told = []
    on_pictures(data, tmp_path, progress=lambda *what: told.append(what))
    assert told[0] == ("evaluate instances.json", 1, 18)
    assert told[-1] == ("evaluate instances.json", 18, 18)


def test_classes_that_do_not_match_are_named(data, tmp_path):
    other = subject(config=replace(CONFIG, classes=("disc", "square", "blob")))
    with pytest.raises(DatasetError, match=r"triangle.*blob"):
        on_pictures(data, tmp_path, other)
