"""Each loss against a formulation that shares no code with it, and its gradient."""

import math

import pytest
import torch

from mobileinst_deploy.training.losses import dice, mask_iou, pixel_bce, sigmoid_focal


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def logits():
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


@pytest.fixture
def soft():
    return torch.rand(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_focal_is_the_papers_formula_in_plain_arithmetic(logits):
    targets = (logits > 0.5).double()
    got = sigmoid_focal(logits, targets)
    for x, t, value in zip(
        logits.flatten().tolist(), targets.flatten().tolist(), got.flatten().tolist(), strict=True
    ):
        p_t = sigmoid(x) if t else 1 - sigmoid(x)
        alpha_t = 0.25 if t else 0.75
        assert value == pytest.approx(-alpha_t * (1 - p_t) ** 2 * math.log(p_t), rel=1e-9)


def test_focal_hardly_counts_what_is_right_already():
    easy, hard = torch.tensor([4.0]), torch.tensor([-4.0])
    one = torch.ones(1)
    assert sigmoid_focal(easy, one) < 1e-4 * sigmoid_focal(hard, one)


def test_dice_is_the_ratio_of_sums(logits, soft):
    for row, target, value in zip(
        logits.tolist(), soft.tolist(), dice(logits, soft).tolist(), strict=True
    ):
        p = [sigmoid(x) for x in row]
        overlap = sum(a * b for a, b in zip(p, target, strict=True))
        total = sum(a * a for a in p) + sum(b * b for b in target)
        assert value == pytest.approx(1 - (2 * overlap + 1) / (total + 1), rel=1e-9)


@pytest.mark.parametrize("target", [torch.ones(1, 9), torch.zeros(1, 9), torch.full((1, 9), 0.5)])
def test_dice_is_nothing_where_mask_and_target_agree(target):
    logits = torch.logit(target.clamp(1e-7, 1 - 1e-7))
    assert dice(logits, target).item() == pytest.approx(0, abs=1e-5)


def test_pixel_bce_is_the_mean_cross_entropy(logits, soft):
    for row, target, value in zip(
        logits.tolist(), soft.tolist(), pixel_bce(logits, soft).tolist(), strict=True
    ):
        terms = [
            -t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x))
            for x, t in zip(row, target, strict=True)
        ]
        assert value == pytest.approx(sum(terms) / len(terms), rel=1e-9)


@pytest.mark.parametrize("loss", [sigmoid_focal, dice, pixel_bce])
def test_gradients_are_those_of_finite_differences(loss, logits, soft):
    assert torch.autograd.gradcheck(
        lambda x: loss(x, soft.round() if loss is sigmoid_focal else soft),
        (logits.requires_grad_(),),
    )


@pytest.mark.parametrize("loss", [sigmoid_focal, dice, pixel_bce])
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_extreme_logits_stay_finite(loss, size):
    logits = torch.full((2, 5), size, requires_grad=True)
    loss(logits, torch.ones(2, 5)).sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("logits", "target", "iou"),
    [
        ([1, 1, -1, -1], [1, 1, 0, 0], 1.0),
        ([1, 1, 1, -1], [0, 1, 1, 1], 0.5),
        ([-1, -1, -1, -1], [1, 0, 0, 0], 0.0),
        ([-1, -1, -1, -1], [0, 0, 0, 0], 0.0),
        ([1, -1, -1, -1], [0.5, 0.49, 0, 0], 1.0),
    ],
)
def test_mask_iou_counts_cells(logits, target, iou):
    got = mask_iou(torch.tensor([logits], dtype=torch.float), torch.tensor([target]).float())
    assert got.item() == pytest.approx(iou)
