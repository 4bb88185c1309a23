"""What is drawn for training: the same for the same seed, masks where the picture is."""

import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mobileinst_deploy.core.errors import DatasetError, MediaError
from mobileinst_deploy.data.shapes import CLASSES
from mobileinst_deploy.training.augment import LabelledFrames, rescale, vary
from mobileinst_deploy.training.config import DataConfig, LossConfig, PicturesConfig, StageConfig
from mobileinst_deploy.training.data import (
    Collate,
    Sample,
    Samples,
    cell_pixels,
)
from mobileinst_deploy.training.loading import batches
from mobileinst_deploy.training.pace import Pace, enough_workers
from mobileinst_deploy.training.sources import ShapesSource, aligned

IMAGE = StageConfig("image", 2, 1e-3, 10)
VIDEO = StageConfig("video", 2, 1e-3, 10)
SHAPES = ShapesSource("train", 0, 50, 8, (64, 128))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("stage", [IMAGE, VIDEO])
def test_a_sample_depends_on_the_seed_and_its_number_alone(stage):
    samples = Samples(SHAPES, DataConfig(), stage, (3, 0), 100)
    again = Samples(SHAPES, DataConfig(), stage, (3, 0), 7)
    assert same(samples[5].frames, again[5].frames)
    assert not same(samples[5].frames, samples[6].frames)
    assert not same(samples[5].frames, replace(samples, seed=(4, 0))[5].frames)
    assert not same(samples[5].frames, replace(samples, seed=(3, 1))[5].frames)


def test_pictures_beside_pairs_come_after_them_and_from_where_they_are_told():
    stills = ShapesSource("val", 0, 5, 8, (64, 128))
    stage = replace(VIDEO, pictures=PicturesConfig(3))
    samples = Samples(SHAPES, DataConfig(), stage, (3, 0), 10, stills)
    drawn = [samples[i].frames for i in range(10)]
    assert [len(frames.images) for frames in drawn] == 2 * [2, 2, 1, 1, 1]
    alone = replace(samples, source=stills, stage=IMAGE, stills=None)
    assert all(same(drawn[i], alone[i].frames) for i in (2, 3, 4, 7, 8, 9))

    batch = next(batches(samples, LossConfig(), stage.samples, 0))
    assert batch.images.shape == (2 + 3 + 2, 3, 64, 128)
    assert (len(batch.targets), len(batch.later)) == (5, 2)
    as_drawn = [*(f.images[0] for f in drawn[:5]), *(f.images[1] for f in drawn[:2])]
    assert all(
        np.array_equal(got.permute(1, 2, 0), wanted)
        for got, wanted in zip(batch.images, as_drawn, strict=True)
    )
    assert batch.later[1].labels.equal(batch.targets[1].labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_go_on_where_a_run_stopped_whatever_the_workers(workers):
    whole = Samples(SHAPES, DataConfig(), IMAGE, (0, 0), 12)
    rest = replace(whole, config=DataConfig(workers=workers))
    expected = list(batches(whole, LossConfig(), 3, 0))[2:]
    got = list(batches(rest, LossConfig(), 3, 2))
    assert len(got) == len(expected) == 2
    for a, b in zip(got, expected, strict=True):
        assert a.images.equal(b.images)
        assert all(x.masks.equal(y.masks) for x, y in zip(a.targets, b.targets, strict=True))


def test_processes_share_the_sequence_of_one():
    samples = Samples(SHAPES, DataConfig(), IMAGE, (0, 0), 8)
    one = [image for batch in batches(samples, LossConfig(), 4, 0) for image in batch.images]
    two = [list(batches(samples, LossConfig(), 2, 0, p, 2)) for p in range(2)]
    shared = [image for step in zip(*two, strict=True) for batch in step for image in batch.images]
    assert all(a.equal(b) for a, b in zip(one, shared, strict=True))


def test_pairs_are_two_frames_within_reach():
    frames = []

    @dataclass(frozen=True)
    class Spy:
        classes = CLASSES

        def __len__(self):
            return 3

        def length(self, clip):
            return (1, 2, 9)[clip]

        def read(self, clip, chosen):
            frames.append((clip, chosen))
            return SHAPES.read(clip, [0, 0])

    samples = Samples(Spy(), DataConfig(max_gap=3), VIDEO, (0, 0), 300)
    for i in range(300):
        samples[i]
    assert {a == b for clip, (a, b) in frames if clip == 0} == {True}
    assert all(a != b and abs(a - b) <= 3 for clip, (a, b) in frames if clip)
    assert {b - a for clip, (a, b) in frames if clip == 2} == {-3, -2, -1, 1, 2, 3}


def test_instances_of_a_pair_share_their_order_and_absent_ones_are_empty():
    left, right = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    left[:, :2] = True
    frames = aligned(
        np.zeros((2, 4, 4, 3), np.uint8), [{7: left}, {7: right, 3: left}], {7: 1, 3: 0}
    )
    assert frames.labels.tolist() == [0, 1]
    assert [m.sum() for m in frames.masks.reshape(4, -1)] == [0, 8, 8, 16]


def test_mirroring_takes_masks_along():
    frames = SHAPES.read(4, [0])
    turned = None
    for seed in range(20):
        turned = vary(frames, True, IMAGE, np.random.default_rng(seed))
        if not same(turned, frames):
            break
    assert np.array_equal(turned.images, frames.images[:, :, ::-1])
    assert np.array_equal(turned.masks, frames.masks[:, :, :, ::-1])


@pytest.mark.parametrize(
    ("short", "long", "size"), [(32, 864, (32, 64)), (96, 864, (96, 192)), (96, 128, (64, 128))]
)
def test_rescaling_keeps_the_aspect_and_the_longest_side(short, long, size):
    frames = rescale(SHAPES.read(4, [0, 3]), short, long)
    assert frames.images.shape[1:3] == frames.masks.shape[2:] == size
    before = SHAPES.read(4, [0, 3]).masks.mean((1, 2, 3))
    assert frames.masks.mean((1, 2, 3)) == pytest.approx(before, abs=0.02)


def test_jitter_draws_every_short_side():
    stage = replace(IMAGE, short_sides=(64, 96), long_side=864)
    frames = SHAPES.read(0, [0])
    sides = {vary(frames, True, stage, np.random.default_rng(i)).images.shape[1] for i in range(20)}
    assert sides == {64, 96}


def test_a_batch_is_padded_right_and_bottom_and_padding_is_no_instance():
    samples = [
        Sample(
            LabelledFrames(
                np.full((1, h, w, 3), 9, np.uint8), np.array([0]), np.ones((1, 1, h, w), bool)
            ),
            0,
        )
        for h, w in ((60, 100), (64, 30))
    ]
    batch = Collate(4)(samples).to(torch.device("cpu"))
    assert batch.images.shape == (2, 3, 64, 128)
    assert (batch.images[1, :, :, :30] == 9).all()
    assert batch.images[1, :, 0, 40].tolist() == [124, 116, 104]
    assert batch.targets[0].masks.sum() == pytest.approx(60 * 100 / 16)
    assert batch.targets[1].masks[0, :, 8:].sum() == 0


def test_cells_hold_how_many_pixels_are_covered():
    mask = np.zeros((1, 3, 4), bool)
    mask[0, :, 1] = True
    assert cell_pixels(mask, (4, 4), 4).tolist() == [[[3]]]


@dataclass(frozen=True)
class Torn:
    """A source in which some pictures cannot be read."""

    bad: frozenset
    classes = CLASSES

    def __len__(self):
        return 4

    def length(self, clip):
        return 1

    def read(self, clip, frames):
        if clip in self.bad:
            raise MediaError("a.jpg is torn", "Fetch it again")
        return SHAPES.read(clip, [0])


def test_unreadable_pictures_are_replaced_and_counted():
    samples = Samples(Torn(frozenset({0, 1})), DataConfig(), IMAGE, (0, 0), 40)
    got = [samples[i] for i in range(40)]
    assert sum(sample.unreadable for sample in got) > 0
    assert Collate(8)(got[:8]).unreadable == sum(s.unreadable for s in got[:8])


def test_nothing_but_unreadable_pictures_is_an_error():
    samples = Samples(Torn(frozenset(range(4))), DataConfig(), IMAGE, (0, 0), 1)
    with pytest.raises(DatasetError, match="in a row cannot be read, the last because a"):
        samples[0]


def test_training_and_held_out_shapes_differ():
    held_out = replace(SHAPES, split="val")
    assert not any(
        same(SHAPES.read(i, [0]), held_out.read(j, [0])) for i in range(4) for j in range(4)
    )


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 64), (50, 63)])
def test_cells_hold_the_exact_number_of_their_pixels(stride, shape):
    masks = np.random.default_rng(1).random((3, *shape)) < 0.4
    padded = np.zeros((3, 64, 64), bool)
    padded[:, : shape[0], : shape[1]] = masks
    cells = padded.reshape(3, 64 // stride, stride, 64 // stride, stride)
    assert np.array_equal(cell_pixels(masks, (64, 64), stride), cells.sum(axis=(2, 4)))


def test_workers_hand_masks_over_as_numbers_of_pixels_and_lose_nothing():
    """A quarter of the bytes of shares; every share of a cell is a whole number of its pixels."""
    rng = np.random.default_rng(0)
    masks = rng.random((3, 1, 61, 90)) < 0.3
    frames = LabelledFrames(np.zeros((1, 61, 90, 3), np.uint8), np.zeros(3, np.int64), masks)
    for stride in (1, 2, 4, 8):
        batch = Collate(stride)([Sample(frames, 0)])
        assert batch.targets[0].masks.dtype == torch.uint8
        shares = batch.to(torch.device("cpu")).targets[0].masks.numpy()
        pixels = cell_pixels(masks[:, 0], (64, 128), stride)
        assert np.array_equal(shares, pixels / np.float32(stride**2))


@pytest.mark.parametrize(
    ("workers", "seconds", "waited", "enough"),
    [(1, 10.0, 0.1, 1), (1, 10.0, 5.0, 3), (2, 10.0, 5.0, 5), (1, 10.0, 9.9, 8), (4, 10.0, 0.0, 4)],
    ids=["keeps up", "half the time", "of two", "no more than cores", "is not lowered"],
)
def test_workers_are_as_many_as_keep_up_by_measurement(workers, seconds, waited, enough):
    assert enough_workers(workers, seconds, waited, most=8) == enough


def test_waiting_is_the_share_of_time_that_a_step_waits_for_data():
    pace = Pace(0, 1)

    def slow():
        for i in range(3):
            time.sleep(0.02)
            yield i

    for _ in pace.timed(slow()):
        time.sleep(0.02)
    assert 0.2 < pace.waiting() < 0.8
    assert pace.waiting() < 0.2


def test_the_number_of_workers_changes_once_and_the_samples_go_on():
    pace = Pace("auto", 1)
    assert pace.workers == 1
    pace._most = 4
    taken = []
    for i in pace.timed(i for i in range(100)):
        taken.append(i)
        pace._auto_waited += 0.01  # as if every batch had been waited for
        if pace.changes():
            break
    assert 2 <= pace.workers <= 4
    assert taken == list(range(len(taken)))
    assert not pace.changes()


class Mixed:
    """Pictures of which every fourth stands upright; their colour is their number."""

    classes = CLASSES

    def __len__(self):
        return 40

    def length(self, clip):
        return 1

    def upright(self, clip):
        return clip % 4 == 0

    def read(self, clip, frames):
        size = (96, 64) if self.upright(clip) else (64, 96)
        masks = np.zeros((1, 1, *size), bool)
        masks[0, 0, 20:50, 20:50] = True
        return LabelledFrames(np.full((1, *size, 3), clip, np.uint8), np.array([clip % 2]), masks)


UPRIGHT = DataConfig(upright=True, flip=False)


@pytest.mark.parametrize("paste", [0, 2])
def test_with_upright_a_batch_is_of_one_orientation_and_upright_ones_are_as_frequent(paste):
    stage = StageConfig("image", 4, 1e-3, 10, size=(64, 128), zoom=(1.0, 1.0))
    samples = Samples(Mixed(), replace(UPRIGHT, paste=paste), stage, (0, 0), 4 * 200)
    sizes = []
    for start in range(0, 4 * 200, 4):
        shapes = {
            samples[start + i].frames.images.shape[1:3] for i in range(4 if start < 80 else 1)
        }
        assert len(shapes) == 1
        sizes.append(shapes.pop())
    assert set(sizes) == {(64, 128), (128, 64)}
    assert 0.15 < sizes.count((128, 64)) / len(sizes) < 0.35


@pytest.mark.parametrize("upright", [False, True])
def test_clips_are_drawn_as_often_as_they_weigh(upright):
    """Clip 0 stands and clip 1 lies, as every fourth and the others do; both weigh ten."""
    stage = StageConfig("image", 1, 1e-3, 10, size=(64, 128), zoom=(1.0, 1.0))
    weights = np.ones(len(Mixed()))
    weights[:2] = 10
    config = replace(UPRIGHT, upright=upright)
    samples = Samples(Mixed(), config, stage, (0, 0), 600, weights=weights)
    frames = [samples[i].frames for i in range(600)]
    drawn = np.array([f.images[f.masks[0]][0, 0] for f in frames])
    for clip in (0, 1):
        share = float((drawn == clip).mean())
        assert share == pytest.approx(10 / weights.sum(), abs=0.07)


class Tall(Mixed):
    """All of them upright."""

    def upright(self, clip):
        return True


@pytest.mark.parametrize(("upright", "pixels"), [(False, 20 * 20), (True, 30 * 30)])
def test_an_upright_picture_keeps_its_scale_in_an_upright_size(upright, pixels):
    """96x64 fits 64x128 at two thirds, and 128x64 as it is."""
    stage = StageConfig("image", 1, 1e-3, 10, size=(64, 128), zoom=(1.0, 1.0))
    samples = Samples(Tall(), replace(UPRIGHT, upright=upright), stage, (0, 0), 8)
    for i in range(8):
        assert samples[i].frames.masks.sum() == pytest.approx(pixels, rel=0.05)


def test_without_upright_samples_are_what_they_were():
    config = replace(UPRIGHT, upright=False)
    stages = [StageConfig("image", batch, 1e-3, 10) for batch in (1, 4)]
    first, second = (Samples(Mixed(), config, stage, (0, 0), 20) for stage in stages)
    assert all(same(first[i].frames, second[i].frames) for i in range(20))
