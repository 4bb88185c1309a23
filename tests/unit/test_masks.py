"""Masks: run lengths as pycocotools has them, overlaps by counting, resizing as torch does it."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from pycocotools import mask as reference

from mobileinst_deploy.core import masks
from mobileinst_deploy.core.errors import DatasetError

some_mask = arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def coarse_mask(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A mask of large blobs, so that runs are long and their differences of both signs."""
    cells = rng.random((-(-size[0] // 9), -(-size[1] // 9))) < 0.4
    return np.kron(cells, np.ones((9, 9), bool))[: size[0], : size[1]]


@given(some_mask)
def test_encoding_is_byte_for_byte_that_of_pycocotools(mask):
    theirs = reference.encode(np.asfortranarray(mask.view(np.uint8)))
    assert masks.encode(mask) == {
        "size": list(mask.shape),
        "counts": theirs["counts"].decode(),
    }


@pytest.mark.parametrize("size", [(1, 1), (480, 640), (1080, 1920)])
def test_large_masks_survive_encoding(size):
    mask = coarse_mask(np.random.default_rng(0), size)
    rle = masks.encode(mask)
    assert np.array_equal(masks.decode(rle), mask)
    assert masks.rle_area(rle) == mask.sum()
    assert rle["counts"] == reference.encode(np.asfortranarray(mask.view(np.uint8)))[
        "counts"
    ].decode("ascii")


@given(some_mask)
def test_every_form_of_run_lengths_is_decoded(mask):
    rle = masks.encode(mask)
    plain = {"size": rle["size"], "counts": masks.rle_runs(rle).tolist()}
    as_bytes = {"size": rle["size"], "counts": rle["counts"].encode()}
    for form in (rle, plain, as_bytes):
        assert np.array_equal(masks.decode(form), mask)


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        {"size": [4, 4]},
        {"size": [4], "counts": "0"},
        {"size": [4, -4], "counts": [0]},
        {"size": [4.0, 4], "counts": [16]},
        {"size": [True, 1], "counts": [1]},
        {"size": [2**20, 2**20], "counts": [0]},
        {"size": [4, 4], "counts": [15]},
        {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4, 4], "counts": [2**80, 0]},
        {"size": [4, 4], "counts": [-(2**80), 16]},
        {"size": [4, 4], "counts": ["16"]},
        {"size": [4, 4], "counts": None},
        {"size": [4, 4], "counts": ""},
        {"size": [4, 4], "counts": "\x00"},
        {"size": [4, 4], "counts": "é"},
        {"size": [4, 4], "counts": "T"},  # cut short: more digits were to come
        {"size": [4, 4], "counts": "T" * 30 + "0"},
    ],
    ids=repr,
)
def test_broken_run_lengths_are_refused_in_a_sentence(broken):
    with pytest.raises(DatasetError) as error:
        masks.decode(broken)
    assert error.value.cause
    assert not error.value.cause.endswith(".")


@given(st.text(max_size=30))
def test_no_text_can_crash_the_decoder(text):
    try:
        mask = masks.decode({"size": [5, 7], "counts": text})
    except DatasetError:
        return
    assert mask.shape == (5, 7)


@given(st.lists(st.none() | arrays.arrays(bool, (6, 5)), max_size=6))
def test_side_by_side_joins_the_frames_of_a_track(frames):
    joined = masks.side_by_side([None if f is None else masks.encode(f) for f in frames], (6, 5))
    wide = np.concatenate(
        [np.zeros((6, 0), bool)] + [np.zeros((6, 5), bool) if f is None else f for f in frames], 1
    )
    assert joined["size"] == [6, 5 * len(frames)]
    assert np.array_equal(masks.decode(joined), wide)
    if frames:
        assert joined == masks.encode(wide)


def test_side_by_side_refuses_a_mask_of_another_size():
    with pytest.raises(DatasetError, match="size"):
        masks.side_by_side([masks.encode(np.ones((3, 4), bool))], (4, 3))


def test_iou_counts_pixels():
    a = np.zeros((3, 4, 6), bool)
    a[0, :2] = a[1, :, :3] = True
    overlap = masks.iou(a, a[:2])
    expected = [[1, 6 / 18], [6 / 18, 1], [0, 0]]
    assert np.allclose(overlap, expected)
    assert overlap.dtype == np.float32


def test_iou_of_nothing_has_the_right_shape():
    none = np.zeros((0, 4, 6), bool)
    assert masks.iou(none, np.ones((2, 4, 6), bool)).shape == (0, 2)
    assert masks.iou(none, none).shape == (0, 0)


def test_the_box_of_a_mask_is_the_smallest():
    mask = np.zeros((10, 12), bool)
    assert masks.box(mask) == (0, 0, 0, 0)
    mask[2:5, 7] = mask[4, 3] = True
    assert masks.box(mask) == (3, 2, 5, 3)


def test_the_threshold_leaves_zero_outside():
    logits = np.array([-1.0, 0.0, np.nan, 1e-30], np.float32)
    assert masks.threshold(logits).tolist() == [False, False, False, True]


@pytest.mark.parametrize("size", [(1, 1), (12, 20), (96, 160), (97, 31), (5, 300)])
def test_samples_at_pixel_centres_are_a_resize_as_torch_does_it(size):
    logits = np.random.default_rng(1).normal(size=(3, 12, 20)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False
    )[0]
    rows, columns = (
        (np.arange(n) + 0.5) * (m / n) - 0.5 for n, m in zip(size, (12, 20), strict=True)
    )
    ours = masks.sample(logits, rows, columns)
    assert ours.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=2e-5, rtol=0)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_sampling_masks_near_positive_logits_alone_loses_nothing(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 9, 2)
    logits = (rng.normal(size=(4, h, w)) - rng.uniform(-1, 2)).astype(np.float32)
    rows = np.sort(rng.uniform(-3, h + 3, 50))
    columns = np.sort(rng.uniform(-3, w + 3, 40))
    full = masks.threshold(masks.sample(logits, rows, columns))
    assert np.array_equal(masks.sample_masks(logits, rows, columns), full)


@pytest.mark.parametrize("seed", range(4))
def test_frames_side_by_side_come_apart_as_they_were(seed):
    rng = np.random.default_rng(seed)
    frames = [coarse_mask(rng, (23, 31)) for _ in range(4)]
    frames[1][:] = seed % 2  # a frame without a pixel, or full to its last one
    frames[2][:, 0] = frames[3][:, -1] = True
    rles = [masks.encode(mask) if mask.any() else None for mask in frames]
    assert masks.apart(masks.side_by_side(rles, (23, 31)), 4) == rles
