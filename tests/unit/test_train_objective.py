"""What a step minimises: on pictures, on pairs by query passing, on batches that show nothing."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.network import Features, apply_kernels, build_model
from mobileinst_deploy.training.config import LossConfig
from mobileinst_deploy.training.losses import association, dice, pixel_bce
from mobileinst_deploy.training.matching import match
from mobileinst_deploy.training.objective import Objective, Target

CONFIG = ModelConfig(
    "topformer-tiny", ("a", "b"), (64, 64), num_queries=6, width=16, num_heads=2, pool_size=2
)


@pytest.fixture
def objective():
    return Objective(build_model(CONFIG), LossConfig(mask_stride=4))


def pictures(count):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 255


def target(*boxes, labels=None):
    masks = torch.zeros(len(boxes), 16, 16)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return Target(torch.tensor(labels or [0] * len(boxes), dtype=torch.int64), masks)


TWO = target((0, 0, 8, 8), (8, 8, 16, 16), labels=[0, 1])


def test_the_loss_is_the_weighted_sum_of_its_parts(objective):
    losses = objective(pictures(2), [TWO, target((2, 2, 9, 9))])
    parts = [v for k, v in losses.items() if k != "loss"]
    assert losses["loss"].item() == pytest.approx(sum(parts).item(), rel=1e-6)
    assert set(losses) == {"loss", "focal", "dice", "bce", "objectness"}


def test_weights_scale_their_own_parts():
    model = build_model(CONFIG).eval()
    one = Objective(model, LossConfig(1, 1, 1, mask_stride=4))(pictures(1), [TWO])
    # The same ratio of class to mask leaves the matching as it was.
    two = Objective(model, LossConfig(2, 2, 5, mask_stride=4))(pictures(1), [TWO])
    for name, factor in {"focal": 2, "dice": 2, "bce": 2, "objectness": 5}.items():
        assert two[name].item() == pytest.approx(factor * one[name].item(), rel=1e-5)


@pytest.mark.parametrize("nothing", [target(), target((0, 0, 0, 0))])
def test_pictures_without_instances_still_teach_that_nothing_is_there(objective, nothing):
    losses = objective(pictures(2), [nothing, nothing])
    assert losses["dice"].item() == losses["bce"].item() == losses["objectness"].item() == 0
    assert losses["focal"].item() > 0
    losses["loss"].backward()
    assert objective.model.instance_decoder.class_head.weight.grad.abs().sum() > 0


def test_query_passing_has_no_weights_of_its_own():
    model = build_model(CONFIG)
    names = {"model." + name for name, _ in model.named_parameters()}
    assert {name for name, _ in Objective(model, LossConfig()).named_parameters()} == names


@pytest.mark.parametrize(("passing", "leaving"), [(True, 0), ("local-local", 1)])
def test_query_passing_is_a_stages_queries_of_t_in_the_local_stage_of_later(
    objective, passing, leaving
):
    objective.model.eval()
    images = pictures(2)
    later = target((4, 4, 12, 12), (0, 8, 8, 16), labels=[0, 1])
    losses = objective(images, [TWO], [later], query_passing=passing)

    model = objective.model
    features = model.features(images)
    decoded = model.decode(Features(features.mask_features[:1], features.memory[:1]))
    now = resized(apply_kernels(decoded.kernels, features.mask_features[:1]))
    found = match(decoded.class_logits[0], now, TWO.labels, TWO.masks.flatten(1), LossConfig())
    passed = model.decode(
        Features(features.mask_features[1:], None), decoded.stage_queries[leaving], first_stage=1
    )
    masks = resized(apply_kernels(passed.kernels, features.mask_features[1:]))[found.queries]
    truth = later.masks.flatten(1)[found.instances]
    expected = 2.0 * (dice(masks, truth) + pixel_bce(masks, truth)).mean()
    assert losses["passed"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("reuse", ["x6", "x5", "x4"])
def test_with_context_reuse_the_later_frame_is_a_reuse_frame(reuse):
    model = build_model(replace(CONFIG, reuse_context=reuse), 0)
    plain = Objective(build_model(CONFIG, 0), LossConfig(mask_stride=4)).eval()
    objective = Objective(model, LossConfig(mask_stride=4)).eval()
    images, later = pictures(2), target((4, 4, 12, 12), (0, 8, 8, 16), labels=[0, 1])
    losses = objective(images, [TWO], [later], query_passing=True)
    anew = plain(images, [TWO], [later], query_passing=True)
    assert losses["dice"].item() == pytest.approx(anew["dice"].item(), rel=1e-4)
    assert losses["passed"].item() != pytest.approx(anew["passed"].item(), rel=1e-6)
    # Of two equal frames nothing tells a reuse frame from a keyframe.
    twice = images[:1].repeat(2, 1, 1, 1)
    same = [o(twice, [TWO], [TWO], query_passing=True)["passed"].item() for o in (objective, plain)]
    assert same[0] == pytest.approx(same[1], rel=1e-4)


def test_without_query_passing_pairs_are_just_pictures(objective):
    objective.model.eval()
    pair = objective(pictures(2), [TWO], [target((1, 1, 6, 6))])
    assert "passed" not in pair
    alone = objective(pictures(2), [TWO, target((1, 1, 6, 6))])
    assert pair["loss"].item() == pytest.approx(alone["loss"].item(), rel=1e-6)


def test_pictures_between_the_frames_of_pairs_change_nothing_for_the_pairs(objective):
    objective.model.eval()
    images, later = pictures(3), target((4, 4, 12, 12), (0, 8, 8, 16), labels=[0, 1])
    pair = objective(images[[0, 2]], [TWO], [later], query_passing=True)
    mixed = objective(images, [TWO, target()], [later], query_passing=True)
    assert mixed["passed"].item() == pytest.approx(pair["passed"].item(), rel=1e-4)
    assert mixed["dice"].item() == pytest.approx(pair["dice"].item(), rel=1e-4)
    assert mixed["focal"].item() > pair["focal"].item()


@pytest.mark.parametrize(
    ("cosine", "instances", "low"),
    [
        (1.0, [0, 0], True),
        (1.0, [0, 1, 0], False),
        (0.0, [0, 1, 0], True),
        (0.0, [0, 0], False),
    ],
)
def test_kernels_of_one_instance_are_to_point_one_way_and_others_not(cosine, instances, low):
    turn = math.acos(cosine)
    kernels = torch.tensor([[1.0, 0.0], [math.cos(turn), math.sin(turn)], [5.0, 0.0]])
    loss, counted = association(kernels[: len(instances)], torch.tensor(instances))
    assert counted == 1
    assert (loss.item() < 0.1) is low


def test_frames_without_a_common_instance_teach_no_association():
    kernels = torch.rand(3, 8, requires_grad=True)
    loss, counted = association(kernels, torch.tensor([0, 1, 2]))
    assert (loss.item(), counted) == (0.0, 0)
    loss.backward()


def test_the_association_loss_is_of_pairs_and_off_unless_asked_for(objective):
    assert "association" not in objective(pictures(2), [TWO], [TWO])
    asked = Objective(objective.model, LossConfig(mask_stride=4, association_weight=2.0)).eval()
    assert "association" not in asked(pictures(2), [TWO, TWO])
    # Matched kernels of two equal frames are equal: only telling the two instances apart costs.
    twice = pictures(1).repeat(2, 1, 1, 1)
    losses = asked(twice, [TWO], [TWO])
    once = Objective(objective.model, LossConfig(mask_stride=4, association_weight=1.0)).eval()
    assert losses["association"].item() == pytest.approx(
        2 * once(twice, [TWO], [TWO])["association"].item(), rel=1e-5
    )
    losses["association"].backward()
    assert objective.model.instance_decoder.queries.grad.abs().sum() > 0


def test_a_vanished_instance_is_supervised_with_an_empty_mask(objective):
    gone = Target(TWO.labels, torch.stack([TWO.masks[0], torch.zeros(16, 16)]))
    losses = objective(pictures(2), [TWO], [gone], query_passing=True)
    assert torch.isfinite(losses["loss"])
    # As a picture, the later frame holds one instance; only the passed query knows of the other.
    alone = objective(pictures(2), [TWO, Target(TWO.labels[:1], TWO.masks[:1])])
    assert losses["dice"].item() == pytest.approx(alone["dice"].item(), rel=1e-4)


def test_an_instance_that_appears_later_has_no_query_to_pass(objective):
    new = Target(TWO.labels, torch.stack([TWO.masks[0], torch.zeros(16, 16)]))
    losses = objective(pictures(2), [new], [TWO], query_passing=True)
    assert torch.isfinite(losses["passed"])


def test_passed_gradients_reach_the_global_stage_of_the_earlier_frame(objective):
    objective(pictures(2), [TWO], [TWO], query_passing=True)["passed"].backward()
    decoder = objective.model.instance_decoder
    assert decoder.stages[0].cross_attention.v.weight.grad.abs().sum() > 0
    assert decoder.class_head.weight.grad is None


def test_the_semantic_loss_is_off_unless_asked_for_and_learns_classes():
    model = build_model(CONFIG)
    assert Objective(model, LossConfig()).semantic is None
    objective = Objective(model, LossConfig(mask_stride=4, semantic_weight=1.0))
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-2)
    values = []
    for _ in range(25):
        losses = objective(pictures(2), [TWO, TWO])
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(losses["semantic"].item())
    assert values[-1] < 0.8 * values[0]


def test_pictures_of_one_batch_cannot_mix(objective):
    """A permutation of the batch permutes matches and leaves the losses."""
    objective.model.eval()
    images, targets = pictures(2), [TWO, target((2, 2, 9, 9))]
    forth = objective(images, targets)["loss"].item()
    back = objective(images.flip(0), targets[::-1])["loss"].item()
    assert forth == pytest.approx(back, rel=1e-5)


def resized(mask_logits):
    return F.interpolate(mask_logits, scale_factor=2, mode="bilinear")[0].flatten(1)


def _half(rank, address, folder):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.set_num_threads(1)
    objective = Objective(build_model(CONFIG).eval(), LossConfig(mask_stride=4))
    batch = [TWO, target((2, 2, 9, 9))]
    losses = objective(pictures(2)[rank : rank + 1], batch[rank : rank + 1])
    losses["loss"].backward()
    flat = torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])
    torch.distributed.all_reduce(flat)
    values = {}
    for name, value in losses.items():
        total = value.detach()
        torch.distributed.all_reduce(total)
        values[name] = total / 2
    if rank == 0:
        torch.save((values, flat / 2), folder / "two.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_losses_and_gradients_of_one_with_both_their_batches(tmp_path):
    torch.multiprocessing.spawn(_half, (f"file://{tmp_path}/meet", tmp_path), nprocs=2)
    two, gradient = torch.load(tmp_path / "two.pt")
    objective = Objective(build_model(CONFIG).eval(), LossConfig(mask_stride=4))
    one = objective(pictures(2), [TWO, target((2, 2, 9, 9))])
    one["loss"].backward()
    flat = torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])
    for name, value in one.items():
        assert two[name].item() == pytest.approx(value.item(), rel=1e-5), name
    # float32 sums in another order; a wrong count would be off by its whole size
    assert (gradient - flat).abs().max() < 1e-3 * flat.abs().max()
