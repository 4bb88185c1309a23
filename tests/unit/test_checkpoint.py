"""Checkpoints: what fits is loaded whole, what does not is named and changes nothing."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import CheckpointError, OutputError
from mobileinst_deploy.network import MobileInst, build_model, randomize_batchnorm
from mobileinst_deploy.network.checkpoint import (
    load_backbone,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)

TINY = ModelConfig(
    backbone="topformer-tiny",
    classes=("cat", "dog"),
    input_size=(64, 128),
    num_queries=3,
    width=16,
    num_heads=4,
)
SHARED = Path(os.environ.get("MOBILEINST_SHARED", Path(__file__).parents[2].parent / "shared"))


def trained(config: ModelConfig = TINY, seed: int = 1) -> MobileInst:
    model = build_model(config, seed)
    randomize_batchnorm(model, seed)
    return model


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone()
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def assert_same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    left, right = weights_of(a), weights_of(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.fixture
def model() -> MobileInst:
    return trained()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, {"note": "five epochs"})
    return path


def refusal(load: Callable[[MobileInst, Path], None], path: Path, config=TINY) -> CheckpointError:
    """The error of a load that must leave the model as it was."""
    model = build_model(config)
    before = weights_of(model)
    with pytest.raises(CheckpointError) as caught:
        load(model, path)
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(str(caught.value)) < 2000
    assert "\n" not in str(caught.value)
    return caught.value


class TestOwnFormat:
    def test_round_trip(self, model, saved):
        config, state = load_checkpoint(saved)
        assert config == TINY
        fresh = build_model(config)
        fresh.load_state_dict(state)
        assert_same_weights(fresh, model)

    def test_weights_into_a_model(self, model, saved):
        fresh = build_model(TINY)
        load_weights(fresh, saved)
        assert_same_weights(fresh, model)

    def test_weights_serve_every_picture_size(self, model, saved):
        fresh = build_model(replace(TINY, input_size=(128, 64)))
        load_weights(fresh, saved)
        assert_same_weights(fresh, model)

    def test_metadata_is_kept(self, saved):
        with safe_open(saved, framework="pt") as file:
            assert file.metadata()["note"] == "five epochs"

    def test_the_same_contents_give_the_same_bytes(self, model, tmp_path):
        metadata = {f"key {i}": str(i) for i in range(8)}
        files = [tmp_path / f"{i}.safetensors" for i in range(3)]
        for file in files:
            save_checkpoint(file, model, metadata)
        assert len({file.read_bytes() for file in files}) == 1

    def test_an_interrupted_save_keeps_the_old_file(self, model, saved, monkeypatch):
        before = saved.read_bytes()

        def interrupted(path, data):
            with path.open("wb") as file:
                file.write(data[:100])
            raise KeyboardInterrupt

        monkeypatch.setattr("mobileinst_deploy.network.checkpoint._write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(saved, model)
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]

    def test_an_unwritable_place_is_one_sentence(self, model, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot be written"):
            save_checkpoint(tmp_path / "file" / "model.safetensors", model)

    def test_only_safetensors_is_written(self, model, tmp_path):
        with pytest.raises(CheckpointError, match="safetensors"):
            save_checkpoint(tmp_path / "model.pth", model)

    def test_a_file_without_configuration_is_no_model(self, model, tmp_path):
        save_file(weights_of(model), tmp_path / "bare.safetensors")
        with pytest.raises(CheckpointError, match="no model configuration"):
            load_checkpoint(tmp_path / "bare.safetensors")
        load_weights(build_model(TINY), tmp_path / "bare.safetensors")

    @pytest.mark.parametrize(
        "config",
        ["", "{", "[]", "3", '{"backbone": "vgg"}', "[" * 100_000, '{"classes": ["a"], "x": 1}'],
        ids=lambda text: text[:12],
    )
    def test_a_broken_configuration_is_one_sentence(self, model, tmp_path, config):
        path = tmp_path / "model.safetensors"
        save_file(weights_of(model), path, {"mobileinst.config": config})
        with pytest.raises(CheckpointError, match="configuration that cannot be used"):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"classes": ("dog", "cat")}, "classes"),
            ({"pool": "avg"}, "pool"),
            ({"stages": ("local", "global")}, "stages"),
            ({"mean": (0.0, 0.0, 0.0)}, "mean"),
        ],
        ids=str,
    )
    def test_weights_that_fit_by_shape_alone_are_refused(self, saved, change, name):
        assert f"another {name}" in str(refusal(load_weights, saved, replace(TINY, **change)))


class TestOtherClasses:
    """Training for other classes starts from everything but the class head."""

    @pytest.mark.parametrize("classes", [("dog", "cat"), ("car", "bus", "van")], ids=len)
    def test_the_class_head_stays_and_all_else_is_loaded(self, model, saved, classes):
        fresh = build_model(replace(TINY, classes=classes), 7)
        head = fresh.instance_decoder.class_head.weight.clone()
        load_weights(fresh, saved, other_classes=True)
        assert torch.equal(fresh.instance_decoder.class_head.weight, head)
        source, loaded = weights_of(model), weights_of(fresh)
        assert all(
            torch.equal(loaded[name], source[name]) for name in source if "class_head" not in name
        )

    @pytest.mark.parametrize("classes", [("car", "bus", "van")], ids=len)
    def test_a_file_without_configuration_is_judged_by_its_shape(self, model, tmp_path, classes):
        torch.save(weights_of(model), tmp_path / "model.pth")
        fresh = build_model(replace(TINY, classes=classes), 7)
        load_weights(fresh, tmp_path / "model.pth", other_classes=True)
        same = build_model(TINY, 7)
        load_weights(same, tmp_path / "model.pth", other_classes=True)
        assert_same_weights(same, model)

    def test_the_same_classes_keep_their_head(self, model, saved):
        fresh = build_model(TINY, 7)
        load_weights(fresh, saved, other_classes=True)
        assert_same_weights(fresh, model)

    def test_other_differences_are_still_refused(self, saved):
        config = replace(TINY, classes=("car",), pool="avg")

        def load(model, path):
            load_weights(model, path, other_classes=True)

        assert "another pool (pool is max there and avg here)" in refusal(load, saved, config).cause


class TestPth:
    @pytest.mark.parametrize("suffix", [".pth", ".pt"])
    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("wrapper", [None, "state_dict_ema", "state_dict", "model"])
    def test_wrappers_and_prefixes_are_taken_off(self, model, tmp_path, suffix, legacy, wrapper):
        state = {f"module.{k}": v for k, v in weights_of(model).items()}
        document = state if wrapper is None else {wrapper: state, "epoch": 3, "lr": [0.1]}
        path = tmp_path / f"model{suffix}"
        torch.save(document, path, _use_new_zipfile_serialization=not legacy)
        fresh = build_model(TINY)
        load_weights(fresh, path)
        assert_same_weights(fresh, model)

    def test_averaged_weights_are_preferred(self, model, tmp_path):
        path = tmp_path / "model.pth"
        other = weights_of(trained(seed=9))
        torch.save({"state_dict": other, "state_dict_ema": weights_of(model)}, path)
        fresh = build_model(TINY)
        load_weights(fresh, path)
        assert_same_weights(fresh, model)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precisions_become_float32(self, model, tmp_path, dtype):
        path = tmp_path / "model.pth"
        torch.save({k: v.to(dtype) for k, v in weights_of(model).items()}, path)
        fresh = build_model(TINY)
        load_weights(fresh, path)
        want = weights_of(model)
        for name, tensor in weights_of(fresh).items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, want[name].to(dtype).float()), name


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPED = {
    "DistributedDataParallel": lambda s: {"state_dict": prefixed(s, "module."), "epoch": 3},
    "torch.compile": lambda s: {"state_dict": prefixed(s, "_orig_mod.")},
    "both": lambda s: prefixed(s, "module._orig_mod."),
    "AveragedModel": lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(5)},
    "n_averaged alone": lambda s: s | {"n_averaged": torch.tensor(5)},
    "Lightning": lambda s: {
        "state_dict": prefixed(s, "model.") | {"criterion.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 1e-3},
        "pytorch-lightning_version": "2.2.0",
    },
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {}, "loss": 0.1},
    "any other name": lambda s: {"net": s},
    "two deep": lambda s: {"checkpoint": {"student": {"network": s}}},
    "parameters": lambda s: {k: torch.nn.Parameter(v) for k, v in s.items()},
    "argparse": lambda s: {"model": s, "args": argparse.Namespace(lr=1e-3, out=Path("x"))},
    "numpy scalars": lambda s: {"model": s, "best": np.float64(0.3), "epoch": np.int64(3)},
}


class TestWrappers:
    """What training scripts and frameworks write, by who does."""

    @pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
    def test_the_network_inside_is_found(self, model, tmp_path, wrap):
        path = tmp_path / "weights.pth"
        torch.save(wrap(weights_of(model)), path)
        fresh = build_model(TINY)
        assert load_weights(fresh, path) == ((), None)
        assert_same_weights(fresh, model)

    @pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth.tar"])
    def test_the_format_goes_by_many_names(self, model, tmp_path, suffix):
        path = tmp_path / f"weights{suffix}"
        torch.save(weights_of(model), path)
        fresh = build_model(TINY)
        assert load_weights(fresh, path) == ((), None)
        assert_same_weights(fresh, model)

    @pytest.mark.parametrize("average", ["ema", "model_ema", "state_dict_ema", "ema_state_dict"])
    def test_of_several_the_averaged_ones_are_taken_and_it_is_said(self, model, tmp_path, average):
        path = tmp_path / "weights.pt"
        other = weights_of(trained(seed=9))
        torch.save({"model": other, average: weights_of(model)}, path)
        fresh = build_model(TINY)
        said = load_weights(fresh, path).note
        assert_same_weights(fresh, model)
        assert said == f"taken are the weights under {average!r}, not those under 'model'"

    def test_averages_beside_the_network_in_one_state_dict_are_told_apart(self, model, tmp_path):
        path = tmp_path / "weights.ckpt"
        both = prefixed(weights_of(trained(seed=9)), "model.")
        torch.save({"state_dict": both | prefixed(weights_of(model), "ema_model.")}, path)
        fresh = build_model(TINY)
        assert "ema_model" in load_weights(fresh, path).note
        assert_same_weights(fresh, model)

    def test_a_wrapped_backbone_is_found(self, model, tmp_path):
        path = tmp_path / "weights.ckpt"
        torch.save({"state_dict": prefixed(weights_of(model), "module.model.")}, path)
        fresh = build_model(TINY)
        load_backbone(fresh, path)
        assert_same_weights(fresh.backbone, model.backbone)

    def test_what_is_asked_for_beyond_data_is_named(self, tmp_path):
        path = tmp_path / "weights.ckpt"
        torch.save({"state_dict": {}, "callbacks": np.random.default_rng(0)}, path)
        assert "asks for numpy.random" in refusal(load_weights, path).cause

    @pytest.mark.parametrize("name", ["O", "V8", "S4", "M8", "(2,)f8", "f8,f8"])
    def test_a_scalar_that_is_no_number_is_refused(self, tmp_path, name):
        class Forged:
            def __reduce__(self):
                scalar = np.float64(1).__reduce__()[0]
                return scalar, (np.dtype(name), b"12345678")

        path = tmp_path / "weights.pth"
        torch.save({"a": Forged()}, path)
        assert "refused" in refusal(load_weights, path).cause

    def test_a_file_that_unpacks_to_a_larger_one_is_refused(self, tmp_path):
        path = tmp_path / "weights.pth"
        torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
        with (
            zipfile.ZipFile(tmp_path / "plain.pth") as plain,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for member in plain.namelist():
                packed.writestr(member, plain.read(member))
        assert "it is compressed" in refusal(load_weights, path).cause


class Trap:
    """Unpickling this would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class TestDangerousFiles:
    @pytest.mark.parametrize("how", ["torch", "torch legacy", "pickle 2", "pickle 5"])
    def test_a_pickle_that_executes_is_refused_and_not_run(self, tmp_path, how):
        path, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
        document = {"state_dict": {"a": torch.zeros(1)}, "meta": Trap(sprung)}
        if how.startswith("torch"):
            torch.save(document, path, _use_new_zipfile_serialization=how == "torch")
        else:
            path.write_bytes(pickle.dumps(document, protocol=int(how[-1])))
        error = refusal(load_weights, path)
        assert "could run code" in error.cause
        assert "safetensors.torch.save_file" in error.next_step
        assert not sprung.exists()

    def test_a_harmless_object_among_the_tensors_is_refused_too(self, tmp_path):
        path = tmp_path / "numpy.pth"
        torch.save({"state_dict": {}, "best": np.random.default_rng(0)}, path)
        assert "could run code" in refusal(load_weights, path).cause


class TestDamagedFiles:
    @pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.pt"])
    @pytest.mark.parametrize("load", [load_weights, load_backbone])
    def test_no_complete_file(self, tmp_path, name, load):
        path = tmp_path / name
        assert "there is no weights file" in refusal(load, path).cause
        path.mkdir()
        assert "is a folder" in refusal(load, path).cause
        path.rmdir()
        path.touch()
        assert "is empty" in refusal(load, path).cause
        for garbage in (b"\x00" * 7, b"garbage " * 99, b"\xff" * 64, b"PK\x03\x04" + b"x" * 99):
            path.write_bytes(garbage)
            assert str(path) in refusal(load, path).cause

    def test_a_name_that_says_nothing(self, tmp_path):
        (tmp_path / "model.onnx").write_bytes(b"x")
        assert "by its name" in refusal(load_weights, tmp_path / "model.onnx").cause

    def test_a_file_that_may_not_be_read(self, saved, monkeypatch):
        def denied(path, *args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
        assert "cannot be read: Permission denied" in refusal(load_weights, saved).cause

    @pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy.pth"])
    @pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.99])
    def test_a_truncated_file(self, model, tmp_path, kind, kept):
        path = tmp_path / f"model.{kind}"
        if kind == "safetensors":
            save_checkpoint(path, model)
        else:
            torch.save(weights_of(model), path, _use_new_zipfile_serialization=kind == "pth")
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        refusal(load_weights, path)

    @given(data=st.data())
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_wild_bytes_never_escape_as_another_exception(self, tmp_path, data):
        suffix = data.draw(st.sampled_from([".safetensors", ".pth"]))
        head = data.draw(st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95"]))
        path = tmp_path / f"wild{suffix}"
        path.write_bytes(head + data.draw(st.binary(max_size=200)))
        with pytest.raises(CheckpointError):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        ("document", "cause"),
        [
            ({}, "no state dict"),
            ([torch.zeros(1)], "no state dict"),
            (torch.zeros(1), "no state dict"),
            ({"a": 1}, "among its tensors"),
            ({3: torch.zeros(1)}, "among its tensors"),
            ({"state_dict": {"a": {"b": torch.zeros(1)}}}, "does not fit this model"),
        ],
        ids=str,
    )
    def test_a_file_of_other_things(self, tmp_path, document, cause):
        torch.save(document, tmp_path / "model.pth")
        assert cause in refusal(load_weights, tmp_path / "model.pth").cause


class TestMisfits:
    def edited(self, tmp_path: Path, model: MobileInst, edit) -> Path:
        state = weights_of(model)
        edit(state)
        torch.save(state, tmp_path / "model.pth")
        return tmp_path / "model.pth"

    def test_missing_unknown_and_misshapen_tensors_are_all_named(self, model, tmp_path):
        def edit(state):
            del state["instance_decoder.queries"]
            state["surplus.weight"] = torch.zeros(2)
            state["mask_decoder.p3.bn.bias"] = torch.zeros(5)

        cause = refusal(load_weights, self.edited(tmp_path, model, edit)).cause
        assert "missing: instance_decoder.queries" in cause
        assert "unknown: surplus.weight" in cause
        assert "of another shape: mask_decoder.p3.bn.bias is 5, not 16" in cause

    def test_the_list_is_bounded(self, model, tmp_path):
        def edit(state):
            state |= {f"surplus.{i}": torch.zeros(1) for i in range(1000)}

        assert "and 995 more" in refusal(load_weights, self.edited(tmp_path, model, edit)).cause

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_a_value_that_is_not_finite(self, model, tmp_path, value):
        def edit(state):
            state["mask_decoder.n4.c.weight"][3, 2, 1, 0] = value

        assert (
            "mask_decoder.n4.c.weight"
            in refusal(load_weights, self.edited(tmp_path, model, edit)).cause
        )

    def test_a_value_beyond_float32(self, model, tmp_path):
        def edit(state):
            name = "mask_decoder.n4.c.weight"
            state[name] = state[name].double() * 1e300

        assert (
            "mask_decoder.n4.c.weight"
            in refusal(load_weights, self.edited(tmp_path, model, edit)).cause
        )

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.complex64])
    def test_numbers_of_another_kind(self, model, tmp_path, dtype):
        def edit(state):
            name = "mask_decoder.n4.c.weight"
            state[name] = state[name].to(dtype)

        assert str(dtype)[6:] in refusal(load_weights, self.edited(tmp_path, model, edit)).cause

    def test_a_tensor_that_only_claims_to_be_huge(self, model, tmp_path):
        def edit(state):
            state["mask_decoder.p3.bn.bias"] = torch.zeros(1).expand(10**12)

        assert "of another shape" in refusal(load_weights, self.edited(tmp_path, model, edit)).cause


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
