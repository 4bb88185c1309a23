"""Matching on cases made by hand, and its promise that costs are the losses."""

from itertools import permutations

import pytest
import torch

from mobileinst_deploy.training.config import LossConfig
from mobileinst_deploy.training.losses import dice, pixel_bce, sigmoid_focal
from mobileinst_deploy.training.matching import (
    bce_cost,
    class_cost,
    dice_cost,
    match,
    sparseinst_worth,
)

BY_LOSSES = LossConfig(matching="losses")
LEFT = torch.tensor([1.0, 1, 0, 0])
RIGHT = torch.tensor([0.0, 0, 1, 1])


def matched(class_logits, mask_logits, labels, masks, config=BY_LOSSES):
    found = match(
        torch.tensor(class_logits, dtype=torch.float),
        torch.as_tensor(mask_logits, dtype=torch.float),
        torch.tensor(labels, dtype=torch.int64),
        masks,
        config,
    )
    return list(zip(found.queries.tolist(), found.instances.tolist(), strict=True))


def test_masks_decide_between_equal_classes():
    masks = torch.stack([LEFT, RIGHT])
    logits = torch.stack([RIGHT, LEFT]) * 8 - 4
    assert matched([[0], [0]], logits, [0, 0], masks) == [(1, 0), (0, 1)]


def test_classes_decide_between_equal_masks():
    masks = torch.stack([LEFT, LEFT])
    logits = torch.stack([LEFT, LEFT]) * 8 - 4
    assert matched([[-3, 3], [3, -3]], logits, [0, 1], masks) == [(1, 0), (0, 1)]


def test_an_instance_is_matched_once_and_the_better_query_wins():
    logits = torch.stack([LEFT * 2 - 1, LEFT * 8 - 4, -LEFT])
    assert matched([[0], [0], [0]], logits, [0], LEFT[None]) == [(1, 0)]


def test_the_best_total_beats_the_best_first_choice():
    # Query 0 suits both, query 1 only the first: greedy choice would leave query 1 the wrong one.
    masks = torch.stack([LEFT, torch.tensor([1.0, 1, 1, 0])])
    logits = torch.stack([torch.tensor([1.0, 1, 0.4, 0]), LEFT]) * 8 - 4
    assert matched([[0], [0]], logits, [0, 0], masks) == [(1, 0), (0, 1)]


def test_no_instances_give_no_pairs():
    assert matched([[0.0], [0.0]], torch.zeros(2, 4), [], torch.zeros(0, 4)) == []


def test_more_instances_than_queries_leave_the_dearest():
    masks = torch.stack([RIGHT, LEFT])
    assert matched([[0.0]], LEFT[None] * 8 - 4, [0, 0], masks) == [(0, 1)]


def test_a_diverged_network_still_gets_a_matching():
    logits = torch.full((2, 4), float("nan"))
    assert len(matched([[0.0], [0.0]], logits, [0], LEFT[None])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_matching_has_the_least_loss_of_all_assignments(seed):
    generator = torch.Generator().manual_seed(seed)
    n, c, p, instances = 4, 3, 12, 3
    classes = torch.randn(n, c, generator=generator) * 2
    logits = torch.randn(n, p, generator=generator) * 2
    labels = torch.randint(c, (instances,), generator=generator)
    masks = torch.rand(instances, p, generator=generator)

    def loss(queries):
        targets = torch.zeros(n, c)
        targets[list(queries), labels] = 1
        pairs = logits[list(queries)]
        mask_loss = dice(pairs, masks).sum() + pixel_bce(pairs, masks).sum()
        return (2 * sigmoid_focal(classes, targets).sum() + 2 * mask_loss).item()

    found = match(classes, logits, labels, masks, BY_LOSSES)
    best = min(loss(queries) for queries in permutations(range(n), instances))
    assert found.instances.tolist() == list(range(instances))
    assert loss(found.queries.tolist()) == pytest.approx(best, rel=1e-5)


def test_costs_are_the_losses_of_each_pair():
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(5, 9, generator=generator) * 3
    masks = torch.rand(2, 9, generator=generator)
    labels = torch.tensor([1, 0])
    classes = torch.randn(5, 2, generator=generator)
    for i in range(5):
        for j in range(2):
            pair = logits[i : i + 1], masks[j : j + 1]
            assert dice_cost(logits, masks)[i, j] == pytest.approx(dice(*pair).item(), abs=1e-5)
            assert bce_cost(logits, masks)[i, j] == pytest.approx(pixel_bce(*pair).item(), abs=1e-5)
            as_class, as_background = torch.zeros(1, 2), torch.zeros(1, 2)
            as_class[0, labels[j]] = 1
            change = sigmoid_focal(classes[i : i + 1], as_class).sum()
            change -= sigmoid_focal(classes[i : i + 1], as_background).sum()
            assert class_cost(classes, labels)[i, j] == pytest.approx(change.item(), abs=1e-5)


def test_sparseinsts_rule_weighs_masks_by_four_fifths_and_classes_by_one():
    """By hand: dice 2 * 0.5 * 1 / (0.5 + 1) of half a mask, probability one half."""
    masks, logits = torch.tensor([[1.0, 1, 0, 0]]), torch.tensor([[30.0, -30, -30, -30]])
    worth = sparseinst_worth(torch.zeros(1, 1), logits, torch.tensor([0]), masks)
    assert worth.item() == pytest.approx((2 * 1 / (1 + 2)) ** 0.8 * 0.5**0.2, rel=1e-4)


def test_the_rules_differ_where_a_sure_class_meets_a_poor_mask():
    """The focal loss of the sure class outweighs the better mask; SparseInst's rule does not."""
    logits = torch.stack([LEFT * 6 - 3, torch.tensor([3.0, -3, 3, -3])])
    classes = [[-2.0], [6.0]]
    assert matched(classes, logits, [0], LEFT[None]) == [(1, 0)]
    assert matched(classes, logits, [0], LEFT[None], LossConfig()) == [(0, 0)]
