"""Checkpoints: what fits is loaded whole, what does not is named and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from checkpoints import TINY, assert_same_weights, refusal, weights_of
from safetensors import safe_open
from safetensors.torch import save_file

from mobileinst_deploy.core.errors import CheckpointError, OutputError
from mobileinst_deploy.network import build_model
from mobileinst_deploy.network.checkpoint import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
)


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
