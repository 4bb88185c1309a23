"""Augmentation: masks stay where the picture is, whatever is drawn."""

from dataclasses import replace

import numpy as np
import pytest

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.training.augment import LabelledFrames, paste, recolour, zoom
from mobileinst_deploy.training.config import DataConfig, StageConfig, TrainConfig
from mobileinst_deploy.training.data import Samples
from mobileinst_deploy.training.sources import ShapesSource

SIZE = (64, 128)


def block(colour, box, label=0):
    """A frame with one bright block on black, and its mask."""
    top, left, bottom, right = box
    mask = np.zeros((1, 1, *SIZE), bool)
    mask[..., top:bottom, left:right] = True
    images = np.zeros((1, *SIZE, 3), np.uint8)
    images[mask[0]] = colour
    return LabelledFrames(images, np.array([label]), mask)


@pytest.mark.parametrize("factors", [(0.5, 0.5), (1.0, 1.0), (1.7, 1.7), (0.4, 2.0)])
@pytest.mark.parametrize("size", [(64, 128), (128, 128), (64, 64)])
def test_a_zoomed_mask_covers_what_it_covered(factors, size):
    frames = block(255, (16, 40, 48, 90))
    for seed in range(8):
        zoomed = zoom(frames, size, factors, np.random.default_rng(seed))
        assert zoomed.images.shape == (1, *size, 3)
        assert zoomed.masks.shape[1:] == (1, *size)
        for mask in zoomed.masks[:, 0]:
            bright = zoomed.images[0, ..., 0] > 127
            assert np.array_equal(mask, bright)


def test_an_instance_of_which_hardly_anything_is_left_is_left_out():
    frames = block(255, (0, 0, 32, 64))
    left = [zoom(frames, SIZE, (2.0, 2.0), np.random.default_rng(i)) for i in range(40)]
    assert {len(f.labels) for f in left} == {0, 1}
    whole = 4 * frames.masks.sum()
    assert all(f.masks.sum() >= 0.15 * whole for f in left if len(f.labels))


def test_what_is_pasted_hides_what_was_there():
    base, donor = block(100, (10, 10, 50, 60)), block(200, (20, 40, 60, 100), label=3)
    pasted = paste(base, donor, np.random.default_rng(0))
    assert pasted.labels.tolist() == [0, 3]
    assert (pasted.images[0][pasted.masks[1, 0]] == 200).all()
    assert (pasted.images[0][pasted.masks[0, 0]] == 100).all()
    assert not (pasted.masks[0] & pasted.masks[1]).any()
    assert pasted.masks[1].sum() == donor.masks.sum()


def test_what_is_pasted_over_whole_is_gone():
    base, donor = block(100, (20, 50, 40, 70)), block(200, (10, 40, 60, 100), label=3)
    assert paste(base, donor, np.random.default_rng(0)).labels.tolist() == [3]


def test_a_picture_without_instances_gives_none():
    base = block(100, (10, 10, 50, 60))
    donor = LabelledFrames(base.images, base.labels[:0], base.masks[:0])
    assert paste(base, donor, np.random.default_rng(0)) is base


def test_recolouring_by_nothing_changes_nothing_and_by_much_changes_much():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    same = recolour(images, 0.0, np.random.default_rng(0))
    assert np.abs(same.astype(int) - images).max() <= 1
    other = recolour(images, 1.0, np.random.default_rng(0))
    assert np.abs(other.astype(int) - images).mean() > 5


def test_a_sample_with_everything_is_the_same_each_time_and_of_the_asked_size():
    stage = StageConfig("image", 2, 1e-3, 10, size=(64, 64), zoom=(0.5, 1.5))
    source = ShapesSource("train", 0, 50, 8, SIZE)
    samples = Samples(source, DataConfig(colour=0.5, paste=2), stage, (0, 0), 20)
    again = Samples(source, DataConfig(colour=0.5, paste=2), stage, (0, 0), 20)
    for i in range(20):
        frames = samples[i].frames
        assert frames.images.shape == (1, 64, 64, 3)
        assert len(frames.labels) == len(frames.masks)
        assert np.array_equal(frames.images, again[i].frames.images)


STAGE = StageConfig("image", 2, 1e-3, 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(STAGE, zoom=(0.5, 1.5)),
        lambda: replace(STAGE, size=(64, 64), zoom=(1.5, 0.5)),
        lambda: replace(STAGE, size=(64, 64), zoom=(0.5,)),
        lambda: replace(STAGE, size=(64, 64), zoom=(0.0, 1.0)),
        lambda: DataConfig(colour=1.5),
        lambda: DataConfig(paste=-1),
        lambda: TrainConfig("m", (STAGE,), DataConfig(paste=1)),
    ],
)
def test_options_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError):
        make()
