"""Context reuse: a reuse frame takes over the deep part of what its keyframe computed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mobileinst_deploy.core.bundle import load_bundle, load_golden
from mobileinst_deploy.core.config import X6_CHANNELS, ModelConfig, Tolerance
from mobileinst_deploy.core.contract import Call, graph_specs
from mobileinst_deploy.core.errors import ConfigError, InputError
from mobileinst_deploy.core.graphs import Graphs
from mobileinst_deploy.network import MobileInst, build_model, randomize_batchnorm
from mobileinst_deploy.network.checkpoint import load_weights, save_checkpoint
from mobileinst_deploy.network.loading import LoadedModel
from mobileinst_deploy.network.macs import count_macs
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.pytorch import TorchRunner

BACKBONES = ("topformer-tiny", "seaformer-base", "mobilenetv2")
REUSES = ("x6", "x5", "x4")
TINY = ModelConfig(
    "topformer-tiny", ("cat", "dog"), (64, 128), num_queries=4, width=16, num_heads=4, pool_size=2
)


def network(reuse, backbone="topformer-tiny", **other):
    model = build_model(replace(TINY, backbone=backbone, reuse_context=reuse, **other), 0)
    randomize_batchnorm(model, 0)
    return model.eval()


def pictures(count=2):
    return 255 * torch.rand(count, 1, 3, 64, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("reuse", REUSES)
@torch.inference_mode()
def test_on_the_keyframe_itself_nothing_changes(backbone, reuse):
    model = network(reuse, backbone)
    image, _ = pictures()
    out = model(image)
    masks = model.mask_head(image, out.kernels, out.context)
    assert torch.allclose(masks, out.mask_logits, rtol=1e-4, atol=1e-4)
    paper = network("none", backbone)(image)
    assert torch.equal(paper.mask_logits, out.mask_logits)
    assert paper.context == ()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("reuse", REUSES)
@torch.inference_mode()
def test_the_signatures_say_what_passes(backbone, reuse):
    model = network(reuse, backbone)
    specs = graph_specs(model.config)
    passed = [t for t in specs["mask_head"].inputs if t.name.startswith("context")]
    assert passed == [t for t in specs["frame"].outputs if t.name.startswith("context")]
    out = model(pictures()[0])
    assert [t.shape for t in passed] == [tuple(c.shape) for c in out.context]


@pytest.mark.parametrize("reuse", REUSES)
@torch.inference_mode()
def test_a_later_frame_reads_the_context_and_nothing_deeper(reuse):
    model = network(reuse, "mobilenetv2")
    first, second = pictures()
    out, later = model(first), model(second)
    reused = model.mask_head(second, out.kernels, out.context)
    anew = model.mask_head(second, out.kernels, later.context)
    assert not torch.allclose(reused, anew, atol=1e-3)
    if reuse != "x6":
        deep = {"x5": 14, "x4": 7}[reuse]
        for layer in model.backbone.features[deep:]:
            layer.forward = None
        assert torch.equal(model.mask_head(second, out.kernels, out.context), reused)


@pytest.mark.parametrize("backbone", X6_CHANNELS)
def test_the_channels_of_x6_are_the_networks(backbone):
    with torch.device("meta"):
        model = MobileInst(replace(TINY, backbone=backbone))
    assert model.backbone.channels[3] == X6_CHANNELS[backbone]


def test_the_deeper_the_reuse_begins_the_more_is_computed():
    costs = [
        count_macs(replace(TINY, backbone="mobilenetv2", reuse_context=r), role="mask_head").total
        for r in ("x4", "x5", "x6", "none")
    ]
    assert costs[0] < costs[1] < costs[2] == costs[3]


def test_the_papers_model_reuses_at_three_quarters_of_a_keyframe():
    config = ModelConfig("topformer-base", ("thing",), (384, 640), reuse_context="x4")
    share = count_macs(config, role="mask_head").total / count_macs(config).total
    assert share < 0.75


@pytest.mark.parametrize(
    "change",
    [
        {"decoder": "fpn", "reuse_context": "x4"},
        {"decoder": "sparseinst", "reuse_context": "x5"},
        {"enhancer": False, "reuse_context": "x6"},
        {"reuse_context": "x3"},
    ],
)
def test_what_cannot_be_reused_is_refused(change):
    with pytest.raises(ConfigError):
        replace(TINY, **change)


def test_weights_may_be_used_with_and_without_reuse(tmp_path):
    model = network("none")
    save_checkpoint(tmp_path / "model.safetensors", model)
    load_weights(network("x4"), tmp_path / "model.safetensors")


@pytest.mark.parametrize("reuse", REUSES)
@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_pair_passes_the_whole_ladder_and_tracks(tmp_path, reuse, dynamic):
    model = network(reuse, "mobilenetv2", padding="tensorflow", decoder_block="separable")
    source = LoadedModel("tiny", model.config, False, 0, None, Tolerance(atol=5e-3), model)
    bundle = export_model(source, tmp_path / "pair", dynamic_kernels=dynamic)
    runner = CpuRunner(bundle)
    golden = load_golden(bundle)
    report = verify_bundle(bundle, runner, golden, reference="golden data")
    assert report.passed, [c for c in report.checks if not c.passed]

    first, second = (p.numpy() for p in pictures())
    ours, theirs = Graphs(TorchRunner(model)), Graphs(runner)
    want = ours.mask_head(second, ours.frame(first))
    got = theirs.mask_head(second, theirs.frame(first))
    assert np.allclose(want, got, atol=5e-3)


def exported(folder, reuse):
    model = network(reuse)
    source = LoadedModel("tiny", model.config, False, 0, None, Tolerance(atol=5e-3), model)
    return export_model(source, folder)


@pytest.fixture(scope="module", params=["onnxruntime", "pytorch"])
def runner(request, tmp_path_factory):
    if request.param == "pytorch":
        return TorchRunner(network("x4"))
    return CpuRunner(exported(tmp_path_factory.mktemp("x4") / "pair", "x4"))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"context_p": None}, r"context_p takes float32 \(1, 16, 4, 8\) and was given nothing"),
        ({"context_m": None}, "context_m .* given nothing"),
        ({"context_p": (1, 16, 8, 8)}, r"given float32 \(1, 16, 8, 8\)"),
        ({"kernels": None}, "kernels .* given nothing"),
        ({"kernels": (1, 4, 8)}, r"kernels takes float32 \(1, 'n', 16\)"),
        ({"image": (1, 3, 128, 64)}, r"image .* given float32 \(1, 3, 128, 64\)"),
    ],
)
def test_a_reuse_frame_is_refused_what_does_not_fit_it(runner, change, cause):
    given = {
        "image": (1, 3, 64, 128),
        "kernels": (1, 2, 16),
        **{f"context_{c}": (1, 16, 4, 8) for c in "pm"},
    }
    given = {name: np.zeros(shape, "f") for name, shape in (given | change).items() if shape}
    with pytest.raises(InputError, match=cause) as refused:
        runner.outputs([Call("mask_head", given)])
    assert refused.value.exit_code == 2
    image = given.pop("image")
    with pytest.raises(InputError, match=cause):
        Graphs(runner).mask_head(image, given)


def test_a_graph_that_knows_no_context_is_given_none():
    plain = TorchRunner(network("none"))
    given = {"image": (1, 3, 64, 128), "kernels": (1, 2, 16), "context_p": (1, 16, 4, 8)}
    with pytest.raises(InputError, match="mask_head graph has no input context_p"):
        plain.outputs([Call("mask_head", {n: np.zeros(s, "f") for n, s in given.items()})])


@pytest.mark.parametrize("other", ["none", "x5"])
def test_a_pair_of_graphs_that_reuse_differently_is_refused(tmp_path, other):
    pair = exported(tmp_path / "pair", "x4")
    strange = exported(tmp_path / "other", other)
    target = pair.graphs["mask_head"].path
    target.write_bytes(strange.graphs["mask_head"].path.read_bytes())
    with pytest.raises(InputError) as refused:
        CpuRunner(load_bundle(tmp_path / "pair")).load("mask_head")
    assert refused.value.exit_code == 2
