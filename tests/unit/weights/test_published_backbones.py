"""Published backbone weights in their own layouts."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import TINY, assert_same_weights, refusal, trained, weights_of
from torch import nn

from mobileinst_deploy.network import MobileInst, build_model
from mobileinst_deploy.network.checkpoint import load_backbone

SHARED = Path(os.environ.get("MOBILEINST_SHARED", Path(__file__).parents[3].parent / "shared"))


class TimmsBlock(nn.Module):
    """A block under timm's names; the first one of the network does not expand."""

    def __init__(self, ins: int, outs: int, stride: int, expand: int):
        super().__init__()
        hidden = ins * expand
        pointwise, norm = partial(nn.Conv2d, kernel_size=1, bias=False), nn.BatchNorm2d
        self.shortcut = stride == 1 and ins == outs
        if expand > 1:
            self.conv_pw, self.bn1 = pointwise(ins, hidden), norm(hidden)
        depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        if expand > 1:
            self.conv_dw, self.bn2 = depthwise, norm(hidden)
            self.conv_pwl, self.bn3 = pointwise(hidden, outs), norm(outs)
        else:
            self.conv_dw, self.bn1 = depthwise, norm(hidden)
            self.conv_pw, self.bn2 = pointwise(hidden, outs), norm(outs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "conv_pwl"):
            y = self.bn1(self.conv_pw(x)).clamp(0, 6)
            y = self.bn2(self.conv_dw(y)).clamp(0, 6)
            y = self.bn3(self.conv_pwl(y))
        else:
            y = self.bn1(self.conv_dw(x)).clamp(0, 6)
            y = self.bn2(self.conv_pw(y))
        return x + y if self.shortcut else y


class TimmsMobileNetV2(nn.Module):
    """MobileNetV2 under timm's names, up to the map of 320 channels."""

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
        rows += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        ins, stages = 32, []
        for expand, outs, repeats, stride in rows:
            stage = []
            for i in range(repeats):
                stage.append(TimmsBlock(ins, outs, 1 if i else stride, expand))
                ins = outs
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.bn1(self.conv_stem(x)).clamp(0, 6))


class TestBackboneImporters:
    """The published layouts, written down from the published code's module names."""

    def topformer(self, model: MobileInst) -> dict[str, torch.Tensor]:
        state = {f"backbone.{k}": v for k, v in weights_of(model.backbone).items()}
        assert {
            "backbone.tpm.stem.0.c.weight",
            "backbone.tpm.stem.0.bn.running_var",
            "backbone.tpm.layer1.conv.0.c.weight",
            "backbone.tpm.layer1.conv.2.bn.weight",
            "backbone.tpm.layer10.conv.4.bn.bias",
            "backbone.trans.transformer_blocks.3.attn.to_q.c.weight",
            "backbone.trans.transformer_blocks.0.attn.proj.1.bn.weight",
            "backbone.trans.transformer_blocks.0.mlp.fc1.c.weight",
            "backbone.trans.transformer_blocks.0.mlp.dwconv.bias",
            "backbone.trans.transformer_blocks.0.mlp.fc2.bn.running_mean",
        } <= state.keys()
        state["backbone.tpm.stem.0.bn.num_batches_tracked"] = torch.tensor(7)
        state["backbone.SIM.1.local_embedding.conv.weight"] = torch.zeros(256, 64, 1, 1)
        state["decode_head.conv_seg.weight"] = torch.zeros(150, 256, 1, 1)
        return state

    def seaformer(self, model: MobileInst) -> dict[str, torch.Tensor]:
        state = weights_of(model.backbone)
        assert {
            "smb1.stem_block.0.c.weight",
            "smb1.layer3.conv.4.bn.bias",
            "smb5.layer1.conv.2.c.weight",
            "trans1.transformer_blocks.3.attn.pos_emb_rowq.pos_embed",
            "trans2.transformer_blocks.0.attn.pos_emb_columnk.pos_embed",
            "trans2.transformer_blocks.0.attn.proj_encode_row.1.bn.weight",
            "trans2.transformer_blocks.0.attn.proj_encode_column.1.c.weight",
            "trans2.transformer_blocks.0.attn.dwconv.c.weight",
            "trans2.transformer_blocks.0.attn.pwconv.bn.running_var",
        } <= state.keys()
        assert state["trans2.transformer_blocks.0.attn.pos_emb_rowk.pos_embed"].shape == (
            1,
            192,
            16,
        )
        return state | {"linear.weight": torch.zeros(1000, 256), "linear.bias": torch.zeros(1000)}

    def large_seaformer(self, model: MobileInst) -> dict[str, torch.Tensor]:
        state = weights_of(model.backbone)
        assert state["trans1.transformer_blocks.2.attn.pos_emb_rowq.pos_embed"].shape[1] == 128
        assert state["trans3.transformer_blocks.2.mlp.fc1.c.weight"].shape[0] == 320 * 6
        return state | {"linear.weight": torch.zeros(1000, 320), "linear.bias": torch.zeros(1000)}

    def resnet(self, model: MobileInst) -> dict[str, torch.Tensor]:
        """torchvision's, which timm's files share."""
        state = weights_of(model.backbone)
        assert {
            "conv1.weight",
            "bn1.running_mean",
            "layer1.1.conv2.weight",
            "layer2.0.downsample.0.weight",
            "layer2.0.downsample.1.running_var",
            "layer4.1.bn2.bias",
        } <= state.keys()
        width = model.backbone.channels[3]
        return state | {"fc.weight": torch.zeros(1000, width), "fc.bias": torch.zeros(1000)}

    def mobilenetv2(self, model: MobileInst) -> dict[str, torch.Tensor]:
        state = weights_of(model.backbone)
        assert {
            "features.0.0.weight",
            "features.0.1.running_mean",
            "features.1.conv.0.0.weight",
            "features.1.conv.1.weight",
            "features.1.conv.2.bias",
            "features.17.conv.2.weight",
            "features.17.conv.3.running_var",
        } <= state.keys()
        return state | {
            "features.18.0.weight": torch.zeros(1280, 320, 1, 1),
            "features.18.1.bias": torch.zeros(1280),
            "classifier.1.weight": torch.zeros(1000, 1280),
        }

    @pytest.mark.parametrize(
        ("backbone", "layout"),
        [
            ("topformer-base", "topformer"),
            ("seaformer-base", "seaformer"),
            ("seaformer-large", "large_seaformer"),
            ("mobilenetv2", "mobilenetv2"),
            ("resnet-18", "resnet"),
            ("resnet-50", "resnet"),
        ],
    )
    @pytest.mark.parametrize("wrapper", [None, "state_dict_ema"])
    def test_the_published_layouts(self, tmp_path, backbone, layout, wrapper):
        config = replace(TINY, backbone=backbone)
        source, fresh = trained(config), build_model(config, 5)
        state = getattr(self, layout)(source)
        path = tmp_path / "published.pth"
        torch.save(state if wrapper is None else {wrapper: state, "meta": {"epoch": 1}}, path)
        others = weights_of(fresh.mask_decoder)
        load_backbone(fresh, path)
        assert_same_weights(fresh.backbone, source.backbone)
        assert all(torch.equal(others[k], v) for k, v in weights_of(fresh.mask_decoder).items())

    @pytest.mark.parametrize("prefix", ["", "module.", "model."])
    def test_timms_mobilenetv2_gives_the_same_maps(self, tmp_path, prefix):
        torch.manual_seed(3)
        theirs = TimmsMobileNetV2().eval()
        for norm in theirs.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(std=0.1)
                norm.weight.data.uniform_(0.8, 1.2)
        state = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
        state[f"{prefix}classifier.weight"] = torch.zeros(1000, 1280)
        torch.save(state, tmp_path / "mobilenetv2_100.pth")
        model = build_model(replace(TINY, backbone="mobilenetv2")).eval()
        load_backbone(model, tmp_path / "mobilenetv2_100.pth")
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(model.backbone(image, depth=5).x5, theirs(image))

    def test_an_own_checkpoint_lends_its_backbone(self, model, saved):
        fresh = build_model(replace(TINY, classes=("car",), width=32))
        load_backbone(fresh, saved)
        assert_same_weights(fresh.backbone, model.backbone)

    def test_another_backbone_is_named(self, saved):
        error = refusal(load_backbone, saved, replace(TINY, backbone="mobilenetv2"))
        assert "does not fit mobilenetv2" in error.cause
        assert "missing: features.0.0.weight" in error.cause
        assert "look like TopFormer's" in error.next_step

    def test_a_sibling_is_told_apart_by_its_shapes(self, saved):
        error = refusal(load_backbone, saved, replace(TINY, backbone="topformer-base"))
        assert "tpm.layer2.conv.4.c.weight is 16x64x1x1, not 32x64x1x1" in error.cause

    def test_a_missing_layer_is_named(self, tmp_path):
        config = replace(TINY, backbone="mobilenetv2")
        state = self.mobilenetv2(trained(config))
        del state["features.9.conv.1.0.weight"]
        torch.save(state, tmp_path / "published.pth")
        error = refusal(load_backbone, tmp_path / "published.pth", config)
        assert "missing: features.9.conv.1.0.weight" in error.cause

    @pytest.mark.shared_data
    def test_real_imagenet_weights_see_a_real_picture(self):
        paths = sorted((SHARED / "weights" / "mobilenetv2_imagenet").glob("*.pth"))
        if not paths:
            pytest.skip(f"no MobileNetV2 weights under {SHARED}")
        (path,) = paths
        # The weights' own normalisation, and the rest of their network, to see that they are alive.
        config = replace(
            TINY, backbone="mobilenetv2", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)
        )
        model = build_model(config).eval()
        load_backbone(model, path)
        published = torch.load(path, weights_only=True)
        for name, tensor in weights_of(model.backbone).items():
            assert torch.equal(tensor, published[name]), name

        data = pytest.importorskip("skimage.data")
        cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float()
        cat = torch.nn.functional.interpolate(cat[..., 75:375], (224, 224), mode="bilinear")
        bn = torch.nn.functional.batch_norm
        with torch.no_grad():
            x = model.backbone(model.normalise(cat), depth=5).x5
            x = torch.nn.functional.conv2d(x, published["features.18.0.weight"])
            norm = [published[f"features.18.1.{k}"] for k in ("running_mean", "running_var")]
            affine = [published[f"features.18.1.{k}"] for k in ("weight", "bias")]
            x = bn(x, *norm, *affine).clamp(0, 6).mean((2, 3))
            logits = x @ published["classifier.1.weight"].T + published["classifier.1.bias"]
        # ImageNet's domestic cats are 281 to 285, behind one background class here.
        assert int(logits.argmax()) in range(282, 287)
