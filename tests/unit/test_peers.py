"""The paper's peers: they keep the contract, and published names find their place."""

from __future__ import annotations

import json

import pytest
import torch
from commands import mobileinst
from safetensors.torch import save_file

from mobileinst_deploy.core.errors import CheckpointError, ConfigError
from mobileinst_deploy.network.checkpoint import load_published
from mobileinst_deploy.network.peers.catalogue import NOT_BUILT, PEERS, load_peer
from mobileinst_deploy.network.peers.condinst import CondInst, aligned_resize
from mobileinst_deploy.network.peers.crossvis import CrossVis
from mobileinst_deploy.network.peers.fastinst import FastInst
from mobileinst_deploy.network.peers.mask2former import Mask2Former
from mobileinst_deploy.network.peers.reproduction import ReproducedMobileInst
from mobileinst_deploy.network.peers.solov2 import LITE, Solov2
from mobileinst_deploy.network.peers.sparseinst import SparseInst
from mobileinst_deploy.network.peers.yolact import Yolact
from mobileinst_deploy.network.user_network import check_contract

CLASSES, SIZE = ("cat", "dog", "fox"), (64, 64)

SMALL = {
    "sparseinst": lambda: SparseInst("resnet-18", CLASSES, SIZE, 6),
    "sparseinst, TopFormer": lambda: SparseInst("topformer-base", CLASSES, SIZE, 6),
    "sparseinst, MobileNetV2": lambda: SparseInst("mobilenetv2", CLASSES, SIZE, 6),
    "fastinst": lambda: FastInst("resnet-18", CLASSES, SIZE, 9, 1),
    "mask2former": lambda: Mask2Former("resnet-18", CLASSES, SIZE, 6, 1, 3),
    "yolact": lambda: Yolact("resnet-18", CLASSES, SIZE, 20),
    "condinst": lambda: CondInst("resnet-18", CLASSES, SIZE, 20),
    "crossvis": lambda: CrossVis("resnet-18", CLASSES, SIZE, 20),
    "solov2": lambda: Solov2("resnet-18", CLASSES, SIZE, 20),
    "solov2, AdelaiDet": lambda: Solov2("resnet-18", CLASSES, SIZE, 20, LITE, "adelaidet"),
    "the reproduction": lambda: ReproducedMobileInst(CLASSES, SIZE, 6),
}


def build(name: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SMALL[name]().eval()


@pytest.mark.parametrize("name", SMALL)
def test_every_peer_keeps_the_contract(name: str):
    check_contract(name, build(name))


@pytest.mark.parametrize("name", SMALL)
def test_a_reuse_frame_of_the_keyframe_itself_gives_its_masks(name: str):
    network = build(name)
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(2)) * 255
    with torch.inference_mode():
        out = network(image)
        again = network.mask_head(image, out.kernels)
        few = network.mask_head(image, out.kernels[:, 2:4])
    torch.testing.assert_close(again, out.mask_logits)
    torch.testing.assert_close(few, out.mask_logits[:, 2:4], rtol=1e-4, atol=1e-4)


#: One published name of every rule, and where it goes.
NAMES = [
    ("sparseinst", "backbone.stem.conv1.norm.running_var", "backbone.bn1.running_var"),
    ("sparseinst", "backbone.stem.conv1.weight", "backbone.conv1.weight"),
    ("sparseinst", "backbone.res3.1.conv2.norm.bias", "backbone.layer2.1.bn2.bias"),
    ("sparseinst", "backbone.res5.0.shortcut.weight", "backbone.layer4.0.downsample.0.weight"),
    ("sparseinst", "backbone.res5.0.shortcut.norm.bias", "backbone.layer4.0.downsample.1.bias"),
    ("sparseinst", "encoder.ppm.stages.2.1.weight", "encoder.ppm.stages.2.1.weight"),
    ("sparseinst", "decoder.inst_branch.iam_conv.bias", "decoder.inst_branch.iam_conv.bias"),
    ("sparseinst", "criterion.empty_weight", None),
    ("sparseinst", "pixel_mean", None),
    (
        "fastinst",
        "sem_seg_head.pixel_decoder.adapter_1.norm.weight",
        "sem_seg_head.pixel_decoder.adapter_1.norm.weight",
    ),
    (
        "mask2former",
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.value_proj.bias",
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.value_proj.bias",
    ),
    ("yolact", "backbone.layers.0.0.conv1.weight", "backbone.layer1.0.conv1.weight"),
    ("yolact", "backbone.layer1.0.conv1.weight", None),
    ("yolact", "semantic_seg_conv.bias", None),
    ("yolact", "prediction_layers.0.upfeature.0.weight", "prediction_layers.0.upfeature.0.weight"),
    ("condinst", "backbone.bottom_up.res2.0.conv1.weight", "backbone.layer1.0.conv1.weight"),
    ("condinst", "backbone.fpn_lateral3.weight", "fpn.lateral.0.weight"),
    ("condinst", "backbone.top_block.p7.bias", "fpn.top.1.bias"),
    (
        "condinst",
        "proposal_generator.fcos_head.cls_tower.3.weight",
        "cell_head.cls_tower.3.weight",
    ),
    ("condinst", "controller.weight", "cell_head.controller.weight"),
    ("condinst", "mask_head._iter", None),
    (
        "crossvis",
        "proposal_generator.fcos_head.reid_tower.10.weight",
        "cell_head.reid_tower.10.weight",
    ),
    (
        "crossvis",
        "proposal_generator.fcos_head.reid_pred_bn.running_var",
        "cell_head.reid_pred_bn.running_var",
    ),
    ("crossvis", "controller.bias", "cell_head.controller.bias"),
    ("crossvis", "cls.weight", None),
    ("solov2, AdelaiDet", "backbone.fpn_output2.bias", "fpn.output.0.bias"),
    ("solov2, AdelaiDet", "ins_head.cate_tower.3.weight", "ins_head.cate_tower.1.weight"),
    ("solov2, AdelaiDet", "ins_head.kernel_tower.4.bias", "ins_head.kernel_tower.1.norm.bias"),
    (
        "solov2, AdelaiDet",
        "mask_head.convs_all_levels.3.conv1.0.weight",
        "mask_branch.convs_all_levels.3.conv1.weight",
    ),
    ("solov2, AdelaiDet", "mask_head.conv_pred.1.bias", "mask_branch.conv_pred.norm.bias"),
    ("solov2", "neck.fpn_convs.2.conv.bias", "fpn.output.2.bias"),
    ("solov2", "bbox_head.kernel_convs.1.gn.weight", "ins_head.kernel_tower.1.norm.weight"),
    ("solov2", "bbox_head.solo_cate.weight", "ins_head.cate_pred.weight"),
    (
        "solov2",
        "mask_feat_head.convs_all_levels.0.conv0.conv.weight",
        "mask_branch.convs_all_levels.0.conv0.weight",
    ),
    ("solov2", "mask_feat_head.conv_pred.0.gn.bias", "mask_branch.conv_pred.norm.bias"),
    ("solov2", "backbone.layer1.0.bn2.running_mean", "backbone.layer1.0.bn2.running_mean"),
    (
        "the reproduction",
        "backbone.SIM.2.global_act.bn.weight",
        "backbone.SIM.2.global_act.bn.weight",
    ),
    (
        "the reproduction",
        "decoder.inst_branch.g_d1.multihead_attn.in_proj_weight",
        "decoder.inst_branch.g_d1.multihead_attn.in_proj_weight",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("peer", "published", "own"), NAMES, ids=lambda v: str(v))
def test_a_published_name_finds_its_place(peer: str, published: str, own: str | None):
    network = build(peer)
    assert network.own_name(published) == own
    shallow = own is not None and ("shortcut" in published or ".bn2" in own)
    if own is not None and not shallow:
        assert own in network.state_dict()


def test_what_a_peer_is_not_built_of_is_listed(tmp_path):
    network = build("sparseinst")
    state = {n: t for n, t in network.state_dict().items() if t.is_floating_point()}
    save_file({**state, "criterion.empty_weight": torch.ones(4)}, tmp_path / "w.safetensors")
    published = load_published(network, tmp_path / "w.safetensors")
    assert published.left == ("criterion.empty_weight",)
    assert published.note == "left aside: criterion.empty_weight"


def test_weights_of_another_peer_are_refused_by_name(tmp_path):
    state = {n: t for n, t in build("yolact").state_dict().items() if t.is_floating_point()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="does not fit SparseInst; tensors missing"):
        load_published(build("sparseinst"), tmp_path / "w.safetensors")


def test_one_tensor_under_two_names_is_refused(tmp_path):
    one = torch.zeros(64)
    save_file(
        {"backbone.bn1.bias": one, "backbone.stem.conv1.norm.bias": one.clone()},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(CheckpointError, match="under two names"):
        load_published(build("sparseinst"), tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["sparseinst-resnet-101", *NOT_BUILT])
def test_a_variant_nobody_built_is_refused(name: str):
    with pytest.raises(ConfigError, match=name):
        load_peer(name, None, None)


@pytest.mark.parametrize("factor", [2, 4])
def test_aligned_resize_keeps_the_middle_of_every_pixel(factor: int):
    x = torch.arange(5.0).expand(1, 1, 3, 5)
    y = aligned_resize(x, factor)
    assert y.shape == (1, 1, 3 * factor, 5 * factor)
    places = (torch.arange(5.0 * factor) - factor / 2) / factor
    torch.testing.assert_close(y[0, 0, 0], places.clamp(0, 4))


@pytest.mark.slow
def test_the_table_of_peers_stands_beside_the_papers():
    result = mobileinst("models", "--peers", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    rows = {row["id"]: row for row in document["peers"]}
    assert set(rows) == set(PEERS)
    assert document["not_built"] == {name: each.to_dict() for name, each in NOT_BUILT.items()}
    assert all(each["source"] and each["ap"] for each in document["not_built"].values())
    assert rows["sparseinst-topformer-base"]["paper_ms"] == 769
    # SparseInst's decoder is the one of Table 6's 34.69 G row, behind other maps.
    assert 50e9 < rows["sparseinst-topformer-base"]["macs"] < 65e9
    assert rows["mask2former-resnet-50"]["parameters"] / 1e6 == pytest.approx(44, abs=0.1)


@pytest.mark.parametrize("name", ["fastinst-topformer-base", "condinst-topformer-base"])
def test_a_picture_with_fewer_places_than_instances_is_refused_in_a_sentence(name):
    with pytest.raises(ConfigError, match="places to propose an instance from, fewer than"):
        load_peer(name, None, (64, 64))
