"""Winograd's transforms are exact algebra, and their rounding is known."""

import numpy as np
import pytest

from mobileinst_deploy.optimize.winograd import TILES, transform

EXACT = 1e-9  # float64; the largest tile amplifies its rounding by about a thousand
# Twice the worst of twenty draws of the test below, relative to the spread of the outputs.
FLOAT32_ERROR = {2: 3e-6, 3: 7e-6, 4: 6e-6, 5: 3e-5, 6: 5e-5, 8: 3e-4}


def correlate(signal, taps):
    return np.array([signal[i : i + 3] @ taps for i in range(len(signal) - 2)])


@pytest.mark.parametrize("m", TILES)
def test_a_tile_gives_what_the_filter_gives(m):
    t = transform(m)
    random = np.random.default_rng(m)
    for _ in range(20):
        d, g = random.standard_normal(t.products), random.standard_normal(3)
        got = t.output @ ((t.filter @ g) * (t.input @ d))
        np.testing.assert_allclose(got, correlate(d, g), atol=EXACT)


@pytest.mark.parametrize("m", TILES)
def test_it_takes_two_products_more_than_it_gives_outputs(m):
    t = transform(m)
    assert t.products == m + 2
    assert t.output.shape == (m, m + 2)
    assert t.filter.shape == (m + 2, 3)
    assert t.input.shape == (m + 2, m + 2)


@pytest.mark.parametrize("m", TILES)
def test_a_bias_among_the_products_reaches_every_output(m):
    t = transform(m)
    np.testing.assert_allclose(t.output @ t.constant, np.ones(m), atol=EXACT)


@pytest.mark.parametrize("m", TILES)
def test_rounding_in_float32_stays_where_it_was_measured(m):
    t = transform(m)
    a, g, b = (x.astype(np.float32) for x in (t.output, t.filter, t.input))
    random = np.random.default_rng(0)
    d = np.maximum(random.standard_normal((64, m + 2, m + 2)), 0)
    w = random.standard_normal((64, 3, 3)) / 24
    want = sum(
        d[:, y : y + m, x : x + m] * w[:, y, x, None, None] for y in range(3) for x in range(3)
    ).sum(0)
    got = a @ ((g @ w.astype(np.float32) @ g.T) * (b @ d.astype(np.float32) @ b.T)).sum(0) @ a.T
    assert np.abs(got - want).max() / want.std() < FLOAT32_ERROR[m]


@pytest.mark.parametrize("m", TILES)
def test_the_input_transform_keeps_magnitudes(m):
    assert 0.5 < np.abs(transform(m).input).max() < 2.0
