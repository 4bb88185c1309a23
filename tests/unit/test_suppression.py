"""Scores as a network's authors evaluate them, worked out by hand."""

import numpy as np
import pytest
from tiny import TINY

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.core.suppression import maskness, matrix_decay, settled_scores

# Three finds of 4x4: the first two are one object, the third another one.
MASKS = np.full((3, 4, 4), -2.0)
MASKS[0, :2] = MASKS[1, :2] = MASKS[2, 2:] = 2.0
SCORES = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.05]])


def needs(**changes) -> Needs:
    return Needs(("cat", "dog"), (32, 32), 3, 4, **changes)


def test_mobileinsts_scores_stay_as_they_are():
    assert settled_scores(TINY, SCORES, MASKS) is SCORES


def test_maskness_is_the_mean_probability_inside():
    logits = np.array([[[np.log(3), np.log(9)], [-5, -5]], [[-1, -1], [-1, -1]]])
    np.testing.assert_allclose(maskness(logits), [(0.75 + 0.9) / 2, 0])
    np.testing.assert_allclose(maskness(logits + 1, shift=1.0)[0], (0.75 + 0.9) / 2)


def test_matrix_suppression_lets_a_duplicate_decay_and_others_alone():
    overlap = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1.0]])
    got = matrix_decay(overlap, np.array([0, 0, 0]))
    np.testing.assert_allclose(got, [1, np.exp(-2 * 0.25), 1])
    np.testing.assert_allclose(matrix_decay(overlap, np.array([0, 1, 0])), 1)


def test_what_is_itself_outdone_outdoes_less():
    overlap = np.array([[1, 0.8, 0], [0.8, 1, 0.8], [0, 0.8, 1.0]])
    got = matrix_decay(overlap, np.array([0, 0, 0]))
    np.testing.assert_allclose(got, [1, np.exp(-2 * 0.64), 1])


def test_box_suppression_keeps_the_stronger_of_one_class():
    got = settled_scores(needs(suppression="box"), SCORES, MASKS)
    np.testing.assert_allclose(got, [[0.9, 0], [0, 0.2], [0.7, 0.05]])


def test_matrix_suppression_within_a_picture():
    got = settled_scores(needs(suppression="matrix"), SCORES, MASKS)
    decay = np.exp(-2)
    np.testing.assert_allclose(got, [[0.9, 0.1 * decay], [0.8 * decay, 0.2], [0.7, 0.05]])


@pytest.mark.parametrize("suppression", ["none", "matrix", "box"])
def test_empty_masks_and_no_finds_are_no_trouble(suppression: str):
    wanted = needs(suppression=suppression, maskness=True)
    assert not settled_scores(wanted, SCORES, np.full((3, 4, 4), -1.0)).any()
    assert settled_scores(wanted, SCORES[:0], MASKS[:0]).shape == (0, 2)
