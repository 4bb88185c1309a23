"""The MAC ledger: fourteen published figures that only one architecture gives."""

from __future__ import annotations

import pytest

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.network import build_model
from mobileinst_deploy.network.macs import PARTS, count_macs

CLASSES = tuple(f"class {i}" for i in range(80))


def paper(**variant) -> ModelConfig:
    variant = {"backbone": "topformer-base", "input_size": (640, 896), **variant}
    return ModelConfig(classes=CLASSES, **variant)


# Published G, G by the architecture, and what differs from the released model.
LEDGER = [
    ("table 3, global", 24.17, 24.169, {"stages": ("global",), "enhancer": False}),
    ("table 3, local", 24.15, 24.155, {"stages": ("local",), "enhancer": False}),
    ("table 3, global twice", 24.24, 24.239, {"stages": ("global",) * 2, "enhancer": False}),
    ("table 3, local twice", 24.22, 24.225, {"stages": ("local",) * 2, "enhancer": False}),
    ("table 3, both", 24.24, 24.239, {"enhancer": False}),
    ("table 5, 8x8 max", 24.24, 24.239, {"enhancer": False, "pool": "max", "pool_size": 8}),
    ("table 6, no enhancer", 24.24, 24.239, {"enhancer": False, "decoder": "mobileinst"}),
    ("table 5, no pooling", 25.85, 25.847, {"enhancer": False, "pool_size": 1}),
    ("table 5, 4x4", 24.32, 24.316, {"enhancer": False, "pool_size": 4}),
    ("table 6, released", 24.37, 24.371, {}),
    ("table 6, SparseInst 4", 34.69, 34.690, {"decoder": "sparseinst", "decoder_convs": 4}),
    ("table 6, SparseInst 2", 24.11, 24.112, {"decoder": "sparseinst", "decoder_convs": 2}),
    ("table 6, SparseInst 1", 18.82, 18.822, {"decoder": "sparseinst", "decoder_convs": 1}),
    ("table 6, FPN", 18.48, 18.484, {"decoder": "fpn"}),
]


@pytest.mark.parametrize(
    ("published", "ledger", "variant"), [row[1:] for row in LEDGER], ids=[row[0] for row in LEDGER]
)
def test_every_row_of_the_ledger(published, ledger, variant):
    total = count_macs(paper(**variant), whole_backbone=True).total / 1e9
    assert total == pytest.approx(published, rel=0.0005)
    assert total == pytest.approx(ledger, abs=0.0005)


@pytest.mark.parametrize(
    "otherwise",
    [
        {"pool_size": 4},
        {"pool_size": 1},
        {"enhancer": False},
        {"stages": ("global",)},
        {"stages": ("local", "global", "local")},
        {"decoder": "fpn"},
        {"width": 192},
        {"num_queries": 50},
        {"backbone": "seaformer-base"},
    ],
    ids=str,
)
def test_the_ledger_decides(otherwise):
    """Whatever is built in another way misses some of the published figures."""
    missed = [
        name
        for name, published, _, variant in LEDGER
        if count_macs(paper(**{**otherwise, **variant}), whole_backbone=True).total / 1e9
        != pytest.approx(published, rel=0.0005)
    ]
    assert missed


def test_at_the_video_size():
    assert count_macs(paper(), image_size=(384, 640)).total / 1e9 == pytest.approx(10.49, abs=0.005)


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [("topformer-base", 11.91), ("seaformer-base", 15.55), ("mobilenetv2", 8.98)],
)
def test_parameters_of_the_papers_models(backbone, millions):
    config = paper(backbone=backbone)
    report = count_macs(config)
    assert report.total_parameters / 1e6 == pytest.approx(millions, abs=0.005)
    assert report.total_parameters == sum(p.numel() for p in build_model(config).parameters())


def test_parameters_of_the_parts():
    parts = count_macs(paper()).parameters
    millions = {name: parts[name] / 1e6 for name in PARTS}
    decoder = millions["projections"] + millions["mask decoder"] + millions["enhancer"]
    assert millions["backbone"] == pytest.approx(4.68, abs=0.005)
    assert decoder == pytest.approx(5.93, abs=0.005)
    assert millions["enhancer"] == pytest.approx(0.53, abs=0.005)
    assert millions["instance decoder"] == pytest.approx(1.29, abs=0.005)
    assert millions["masks"] == 0


class TestMaskHead:
    def test_leaves_the_instance_decoder_out(self):
        frame, mask_head = count_macs(paper()), count_macs(paper(), role="mask_head")
        assert mask_head.parts["instance decoder"] == 0
        assert mask_head.parameters["instance decoder"] == 0
        assert mask_head.total == frame.total - frame.parts["instance decoder"]

    def test_pays_for_the_kernels_it_gets(self):
        ten = count_macs(paper(), role="mask_head", num_kernels=10).parts["masks"]
        assert ten == 10 * 256 * 80 * 112

    def test_without_the_enhancer_skips_the_transformer(self):
        frame = count_macs(paper(enhancer=False))
        mask_head = count_macs(paper(enhancer=False), role="mask_head")
        assert mask_head.parts["backbone"] < frame.parts["backbone"]
        assert mask_head.parameters["backbone"] < frame.parameters["backbone"]


def test_nothing_pays_for_an_x6_that_nothing_reads():
    config = paper(stages=("local",), enhancer=False)
    whole, needed = count_macs(config, whole_backbone=True), count_macs(config)
    assert whole.total - needed.total == pytest.approx(0.534e9, rel=0.01)


def test_a_size_that_is_no_multiple_of_64_is_refused():
    with pytest.raises(ConfigError, match="100x640"):
        count_macs(paper(), image_size=(100, 640))
