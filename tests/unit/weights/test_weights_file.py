"""Files of weights as they are found: wrapped, dangerous, damaged, or another network's."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import TINY, assert_same_weights, refusal, trained, weights_of
from hypothesis import HealthCheck, given, settings, strategies as st

from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.network import MobileInst, build_model
from mobileinst_deploy.network.checkpoint import (
    load_backbone,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)


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

    @pytest.mark.parametrize("name", ["checkpoint-3.pth.tar", "model_best.pth.tar", "last.pth"])
    def test_what_timms_training_script_keeps_gives_its_averaged_network(
        self, model, tmp_path, name
    ):
        arguments = argparse.Namespace(
            model="topformer_base", lr=1e-3, opt_betas=None, decay_epochs=[90, 120], aug_splits=0,
            model_kwargs={}, data_dir=Path("imagenet"), world_size=8, native_amp=True,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters())
        document = {
            "epoch": 3,
            "arch": arguments.model,
            "state_dict": weights_of(trained(seed=9)),
            "optimizer": optimizer.state_dict(),
            "version": 2,
            "args": arguments,
            "amp_scaler": torch.amp.GradScaler("cpu", enabled=False).state_dict(),
            "state_dict_ema": prefixed(weights_of(model), "module."),
            "metric": np.float64(71.3),
        }
        torch.save(document, tmp_path / name)
        fresh = build_model(TINY)
        load_backbone(fresh, tmp_path / name)
        assert_same_weights(fresh.backbone, model.backbone)
        whole = build_model(TINY)
        assert "under 'state_dict_ema" in (load_weights(whole, tmp_path / name).note or "")
        assert_same_weights(whole, model)

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

    @pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
    def test_the_list_of_parts_is_told_and_how_to_join_them(self, tmp_path, kind):
        path = tmp_path / f"{kind}.index.json"
        path.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
        told = refusal(load_weights, path)
        assert "list of a weights file's parts" in told.cause
        assert "save_file" in told.next_step

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
