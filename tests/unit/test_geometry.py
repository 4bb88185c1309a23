"""How pictures become inputs and masks come back: one geometry for training and deployment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.masks import iou, threshold
from mobileinst_deploy.media.letterbox import PADDING, fit, geometry_of, unfit_masks

INPUT = (64, 128)


def fit_masks(masks, geometry):
    """Masks of a picture on its network input, by the way of the picture itself."""
    pictures = (np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255 for mask in masks)
    fitted = [fit(picture, geometry.input_size)[0][..., 0] > 127 for picture in pictures]
    height, width = geometry.content
    for mask in fitted:  # the padding belongs to none
        mask[height:] = mask[:, width:] = False
    return np.array(fitted, bool).reshape(-1, *geometry.input_size)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_content_fits_keeps_its_aspect_and_touches_a_side(height, width):
    geometry = geometry_of((height, width), INPUT)
    h, w = geometry.content
    assert 1 <= h <= INPUT[0]
    assert 1 <= w <= INPUT[1]
    assert h == INPUT[0] or w == INPUT[1]
    assert abs(h - height * geometry.scale) <= 1
    assert abs(w - width * geometry.scale) <= 1


def test_a_picture_of_the_input_size_passes_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (*INPUT, 3)).astype(np.uint8)
    fitted, geometry = fit(image, INPUT)
    assert np.array_equal(fitted, image)
    assert geometry.content == geometry.original == INPUT


@pytest.mark.parametrize(
    ("size", "content"),
    [((32, 64), (64, 128)), ((64, 64), (64, 64)), ((90, 360), (32, 128)), ((1, 900), (1, 128))],
)
def test_padding_is_grey_to_the_right_and_below(size, content):
    fitted, geometry = fit(np.zeros((*size, 3), np.uint8), INPUT)
    assert fitted.shape == (*INPUT, 3)
    assert geometry.content == content
    assert not fitted[: content[0], : content[1]].any()
    assert (fitted[content[0] :] == PADDING).all()
    assert (fitted[:, content[1] :] == PADDING).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=lambda image: f"{image.shape} {image.dtype}",
)
def test_what_is_no_rgb_picture_is_refused(image):
    with pytest.raises(MediaError):
        fit(image, INPUT)


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


@pytest.mark.parametrize("size", [(64, 128), (120, 100), (480, 640), (37, 91)])
def test_a_mask_that_goes_in_comes_out_where_it_was(size):
    mask = disc(size, size[1] * 0.6, size[0] * 0.55, min(size) * 0.3)
    geometry = geometry_of(size, INPUT)
    fitted = fit_masks(mask[None], geometry)
    assert fitted.shape == (1, *INPUT)
    back = unfit_masks(fitted.astype(np.float32) - 0.5, geometry)
    assert back.shape == (1, *size)
    assert iou(back, mask[None])[0, 0] > 0.93


def test_masks_at_an_eighth_come_back_centred():
    """An offset of half a cell, the usual mistake, would cost far more than this allows."""
    size = (240, 320)
    mask = disc(size, 170, 120, 60)
    geometry = geometry_of(size, (384, 512))
    fitted = fit_masks(mask[None], geometry)[0]
    cells = fitted.reshape(48, 8, 64, 8).mean((1, 3)).astype(np.float32) - 0.5
    back = unfit_masks(cells[None], geometry)[0]
    assert iou(back[None], mask[None])[0, 0] > 0.97
    rows, columns = np.nonzero(back)
    assert abs(rows.mean() - 120) < 0.3
    assert abs(columns.mean() - 170) < 0.3


def test_without_padding_masks_are_resized_as_torch_would():
    logits = np.random.default_rng(0).normal(size=(3, 8, 16)).astype(np.float32)
    geometry = geometry_of((128, 256), INPUT)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], geometry.original, mode="bilinear", align_corners=False
    )[0].numpy()
    differ = unfit_masks(logits, geometry) != threshold(resized)
    assert not differ[np.abs(resized) > 1e-5].any()


def test_what_lies_in_the_padding_is_not_seen():
    logits = np.full((1, 8, 16), -1.0, np.float32)
    logits[0, 6:] = 1  # rows 48 to 63 of the input, below the content
    geometry = geometry_of((30, 128), INPUT)
    assert not unfit_masks(logits, geometry).any()


def test_no_masks_are_no_problem():
    geometry = geometry_of((30, 40), INPUT)
    assert unfit_masks(np.zeros((0, 8, 16), np.float32), geometry).shape == (0, 30, 40)
    assert fit_masks(np.zeros((0, 30, 40), bool), geometry).shape == (0, *INPUT)
