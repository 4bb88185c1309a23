"""The network: every variant of the paper's tables builds, runs, trains and is the same by seed."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import skimage.data
import tiny
import torch

from mobileinst_deploy.core.config import Backbone, ModelConfig
from mobileinst_deploy.network import (
    MobileInst,
    apply_kernels,
    build_model,
    randomize_batchnorm,
)
from mobileinst_deploy.network.instance_decoder import sine_position

BACKBONES = get_args(Backbone)
TINY = replace(tiny.TINY, classes=("cat", "dog", "bird"), num_queries=7, width=32)

TABLE_3 = [
    {"stages": stages, "enhancer": False}
    for stages in (
        ("global",),
        ("local",),
        ("global", "global"),
        ("local", "local"),
        ("global", "local"),
        ("local", "global"),
    )
]
TABLE_5 = [
    {"pool": pool, "pool_size": size, "enhancer": False}
    for pool in ("max", "avg")
    for size in (1, 2, 4, 8)
]
TABLE_6 = [
    {"enhancer": True},
    {"enhancer": False},
    {"decoder": "fpn"},
    *({"decoder": "sparseinst", "decoder_convs": n} for n in (1, 2, 4)),
]


def picture(config: ModelConfig, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, *config.input_size, generator=generator) * 255


def untrained(config: ModelConfig, seed: int = 0) -> MobileInst:
    model = build_model(config, seed)
    randomize_batchnorm(model, seed)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> MobileInst:
    return untrained(TINY)


@pytest.mark.parametrize("variant", TABLE_3 + TABLE_5 + TABLE_6, ids=str)
@torch.no_grad()
def test_every_variant_of_the_papers_tables_runs(variant):
    config = replace(TINY, **variant)
    out = untrained(config)(picture(config))
    assert out.class_logits.shape == (1, 7, 3)
    assert out.objectness_logits.shape == (1, 7, 1)
    assert out.kernels.shape == (1, 7, 32)
    assert out.mask_logits.shape == (1, 7, 8, 16)
    assert all(tensor.isfinite().all() for tensor in out[:4])


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_every_backbone_gives_the_maps_it_announces(backbone):
    config = replace(TINY, backbone=backbone)
    model = untrained(config)
    maps = model.backbone(picture(config) / 255)
    assert tuple(m.shape[1] for m in maps) == model.backbone.channels
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 16), (4, 8), (2, 4), (1, 2)]
    assert model.backbone(picture(config) / 255, depth=5).x6 is None


@pytest.mark.parametrize("decoder", ["mobileinst", "fpn", "sparseinst"])
@pytest.mark.parametrize("size", [(64, 64), (192, 64), (128, 320)])
@torch.no_grad()
def test_any_size_that_is_a_multiple_of_64_works(decoder, size):
    config = replace(TINY, decoder=decoder, input_size=size)
    out = untrained(replace(config, input_size=(64, 64)))(picture(config))
    assert out.mask_logits.shape == (1, 7, size[0] // 8, size[1] // 8)


@torch.no_grad()
def test_a_batch_gives_what_its_pictures_give_alone(model):
    a, b = picture(TINY, seed=1), picture(TINY, seed=2)
    together = model(torch.cat([a, b]))
    for alone, row in ((model(a), 0), (model(b), 1)):
        for got, want in zip(together, alone, strict=True):
            torch.testing.assert_close(got[row : row + 1], want, rtol=1e-4, atol=1e-4)


class TestKernelReuse:
    @pytest.mark.parametrize(
        "variant",
        [{}, {"enhancer": False}, {"decoder": "fpn"}, {"decoder": "sparseinst"}],
        ids=str,
    )
    @torch.no_grad()
    def test_own_kernels_give_own_masks(self, variant):
        config = replace(TINY, **variant)
        model = untrained(config)
        image = picture(config)
        out = model(image)
        torch.testing.assert_close(model.mask_head(image, out.kernels), out.mask_logits)

    @pytest.mark.parametrize("n", [0, 1, 7, 30])
    @torch.no_grad()
    def test_takes_any_number_of_kernels(self, model, n):
        masks = model.mask_head(picture(TINY), torch.ones(1, n, 32))
        assert masks.shape == (1, n, 8, 16)

    @pytest.mark.parametrize(
        ("variant", "transformer_runs"),
        [({}, True), ({"enhancer": False}, False), ({"decoder": "fpn"}, False)],
        ids=str,
    )
    @torch.no_grad()
    def test_x6_is_made_only_where_it_is_read(self, variant, transformer_runs):
        model = untrained(replace(TINY, **variant))
        runs: list[bool] = []
        model.backbone.trans.register_forward_hook(lambda *_: runs.append(True))
        model.mask_head(picture(TINY), torch.ones(1, 1, 32))
        assert bool(runs) is transformer_runs

    def test_masks_are_kernels_times_mask_features(self):
        kernels, features = torch.rand(2, 3, 4), torch.rand(2, 4, 5, 6)
        want = np.einsum("bnd,bdhw->bnhw", kernels.numpy(), features.numpy())
        np.testing.assert_allclose(apply_kernels(kernels, features).numpy(), want, rtol=1e-5)


class TestQueryPassing:
    @torch.no_grad()
    def test_stages_can_be_run_one_after_the_other(self, model):
        features = model.features(picture(TINY))
        whole = model.decode(features)
        later = model.decode(features, queries=whole.stage_queries[0], first_stage=1)
        assert len(whole.stage_queries) == 2
        assert len(later.stage_queries) == 1
        torch.testing.assert_close(later.kernels, whole.kernels)

    def test_an_earlier_frames_queries_reach_a_later_frames_masks(self, model):
        now, later = model.features(picture(TINY, seed=1)), model.features(picture(TINY, seed=2))
        queries = model.decode(now).stage_queries[0]
        queries.retain_grad()
        decoded = model.decode(later, queries=queries, first_stage=1)
        apply_kernels(decoded.kernels, later.mask_features).sum().backward()
        assert queries.grad is not None
        assert queries.grad.abs().max() > 0

    @torch.no_grad()
    def test_a_global_stage_without_x6_is_refused(self, model):
        features = model.features(picture(TINY))
        with pytest.raises(ValueError, match="X6"):
            model.decode(features._replace(memory=None))
        model.decode(features._replace(memory=None), model.decode(features).stage_queries[0], 1)

    @pytest.mark.parametrize("first_stage", [-1, 2])
    def test_a_stage_that_is_not_there_is_refused(self, model, first_stage):
        with pytest.raises(ValueError, match="first_stage"):
            model.decode(model.features(picture(TINY)), first_stage=first_stage)


class TestTraining:
    @pytest.mark.parametrize(
        "variant",
        [
            *({"backbone": backbone} for backbone in BACKBONES),
            {"decoder": "fpn"},
            {"decoder": "sparseinst"},
            {"stages": ("local", "global")},
            {"pool": "avg"},
        ],
        ids=str,
    )
    def test_the_loss_reaches_every_weight(self, variant):
        config = replace(TINY, input_size=(128, 128), **variant)
        model = build_model(config)
        out = model(picture(config, batch=2))
        generator = torch.Generator().manual_seed(0)
        loss = sum((t * torch.randn(t.shape, generator=generator)).sum() for t in out[:4])
        loss.backward()
        unreached = [
            name
            for name, p in model.named_parameters()
            if p.grad is None or not p.grad.isfinite().all() or p.grad.abs().max() == 0
        ]
        assert unreached == []

    def test_classes_start_improbable_and_masks_unsaturated(self):
        config = replace(TINY, width=256, input_size=(128, 128))
        with torch.no_grad():
            out = build_model(config)(picture(config, batch=2))
        assert out.class_logits.sigmoid().mean() == pytest.approx(0.01, abs=0.005)
        assert 0.1 < out.mask_logits.std() < 5

    def test_a_few_steps_lower_the_loss(self):
        config = replace(TINY, input_size=(64, 64))
        model = build_model(config)
        image = picture(config, batch=2)
        target = (torch.rand(2, 7, 8, 8, generator=torch.Generator().manual_seed(3)) > 0.5).float()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses: list[float] = []
        for _ in range(8):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model(image).mask_logits, target
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


class TestSeed:
    def test_the_same_seed_gives_the_same_weights(self):
        a, b = (build_model(TINY, 3).state_dict() for _ in range(2))
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_another_seed_gives_other_weights(self):
        a, b = build_model(TINY, 3).state_dict(), build_model(TINY, 4).state_dict()
        assert not torch.equal(a["mask_decoder.p3.c.weight"], b["mask_decoder.p3.c.weight"])

    def test_the_global_generator_is_left_alone(self):
        torch.manual_seed(5)
        want = torch.rand(3)
        torch.manual_seed(5)
        randomize_batchnorm(build_model(TINY, 1), 2)
        assert torch.equal(torch.rand(3), want)

    def test_random_batchnorms_are_not_the_identity(self):
        model = build_model(TINY)
        randomize_batchnorm(model, 0)
        again = build_model(TINY)
        randomize_batchnorm(again, 0)
        assert model.training
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean.abs().max() > 1e-3, name
                assert (module.running_var - 1).abs().max() > 1e-3, name
                assert module.weight.std() > 0.05, name
                assert module.momentum == 0.1
                assert torch.equal(module.running_var, again.get_submodule(name).running_var)

    @pytest.mark.parametrize("backbone", BACKBONES)
    @torch.no_grad()
    def test_an_untrained_models_masks_have_edges(self, backbone):
        config = replace(TINY, backbone=backbone, input_size=(256, 256), width=128)
        photograph = torch.from_numpy(skimage.data.astronaut()[::2, ::2].copy()).permute(2, 0, 1)
        masks = untrained(config)(photograph[None].float()).mask_logits > 0
        filled = masks.flatten(2).float().mean(2)
        assert ((filled > 0.001) & (filled < 0.999)).float().mean() > 0.5


def test_the_picture_is_normalised_inside(model):
    config = replace(TINY, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    bare = build_model(config)
    bare.load_state_dict(model.state_dict())
    image = picture(TINY)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (TINY.mean, TINY.std))
    with torch.no_grad():
        torch.testing.assert_close(model(image), bare.eval()((image - mean) / std))


class TestSinePosition:
    def test_repeats_along_the_other_axis(self):
        table = sine_position(3, 5, 32).reshape(3, 5, 32)
        assert np.array_equal(table[:, 0, :16], table[:, 4, :16])
        assert np.array_equal(table[0, :, 16:], table[2, :, 16:])
        assert len(np.unique(table.reshape(15, 32).round(4), axis=0)) == 15

    def test_starts_at_sine_and_cosine_of_the_normalised_position(self):
        table = sine_position(4, 4, 8).reshape(4, 4, 8)
        angle = np.arange(1, 5) / 4 * 2 * np.pi
        np.testing.assert_allclose(table[:, 0, 0], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(table[:, 0, 1], np.cos(angle), atol=1e-6)
        np.testing.assert_allclose(table[:, 0, 2], np.sin(angle / 100), atol=1e-6)

    def test_is_added_to_keys_and_not_to_values(self, model):
        stage = model.instance_decoder.stages[0]
        seen = {}

        def look(module, args):
            seen["key"], seen["value"] = args[1], args[2]

        handle = stage.cross_attention.register_forward_pre_hook(look)
        memory = torch.rand(1, 32, 2, 3)
        with torch.no_grad():
            stage(torch.rand(1, 7, 32), torch.rand(1, 7, 32), memory)
        handle.remove()
        assert torch.equal(seen["value"], memory.flatten(2).transpose(1, 2))
        position = torch.from_numpy(sine_position(2, 3, 32))
        torch.testing.assert_close(seen["key"] - seen["value"], position[None])
