"""The C library's scores of dense networks are those of ``core/suppression.py``."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from track_checker import Checker

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.core.suppression import settled_scores
from mobileinst_deploy.core.tracker import class_scores

FAST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SUPPRESSIONS = ("none", "matrix", "box")


def by_the_library(
    checker: Checker, needs: Needs, logits: np.ndarray, quality: np.ndarray, masks: np.ndarray
) -> tuple[int, np.ndarray]:
    """What the library says: its status, and scores (N, C)."""
    n, classes = logits.shape
    rule = SUPPRESSIONS.index(needs.suppression)
    line = f"scores {n} {classes} {masks.shape[1]} {masks.shape[2]} {int(needs.maskness)}"
    with checker.conversation():
        checker.send(f"{line} {needs.mask_shift!r} {rule}\n".encode())
        for array in (logits, quality, masks):
            checker.send(np.ascontiguousarray(array, np.float32).tobytes())
        status, *scores = checker.hear().split()
    return int(status), np.array([float(s) for s in scores]).reshape(n, classes)


def drawn(seed: int, n: int, classes: int, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Finds of few objects, so that many are one another's duplicates; some are empty."""
    draw = np.random.default_rng(seed)
    objects = draw.normal(size=(max(1, n // 4), *size)) * 3
    masks = objects[draw.integers(len(objects), size=n)] + draw.normal(size=(n, *size)) * 0.7
    masks[draw.random(n) < 0.1] = -1.0
    logits = draw.normal(size=(n, classes)) * 3
    # Equal scores too: the earlier find goes first.
    logits[draw.random(n) < 0.3] = 1.0
    quality = np.where(draw.random((n, 1)) < 0.3, 30.0, draw.normal(size=(n, 1)))
    return tuple(a.astype(np.float32) for a in (logits, quality, masks))


@pytest.mark.parametrize("suppression", SUPPRESSIONS)
@pytest.mark.parametrize("maskness", [False, True])
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 30), st.integers(1, 9))
@FAST
def test_are_the_hosts(checker, suppression, maskness, seed, n, classes, side):
    needs = Needs(
        ("a",), (32, 32), 1, 1, maskness=maskness, suppression=suppression, mask_threshold=0.45
    )
    logits, quality, masks = drawn(seed, n, classes, (side, side + 1))
    status, got = by_the_library(checker, needs, logits, quality, masks)
    want = settled_scores(needs, class_scores(logits, quality), masks)
    assert status == 0
    # Which finds are left is equal; a score may differ in what exp rounds.
    np.testing.assert_array_equal(got > 0, want > 0)
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=0)


@pytest.mark.parametrize("where", range(3))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_of_what_is_not_finite_are_refused(checker, where, value):
    arrays = drawn(0, 4, 3, (4, 4))
    arrays[where].flat[-1] = value
    assert by_the_library(checker, Needs(("a",), (32, 32), 1, 1), *arrays)[0] == 3
