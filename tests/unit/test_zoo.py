"""The zoo says what each model is, and nothing pretends to be trained."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tiny import TINY, TINY_TOML

from mobileinst_deploy.core.errors import CheckpointError, ConfigError
from mobileinst_deploy.core.zoo import load_model_toml, zoo_folder, zoo_ids
from mobileinst_deploy.network.loading import load_model

PAPERS = {
    "mobileinst-mobilenetv2-640": ("mobilenetv2", (640, 896), 80),
    "mobileinst-topformer-640": ("topformer-base", (640, 896), 80),
    "mobileinst-seaformer-640": ("seaformer-base", (640, 896), 80),
    "mobileinst-topformer-512": ("topformer-base", (512, 896), 80),
    "mobileinst-topformer-vis": ("topformer-base", (384, 640), 40),
    "mobileinst-topformer-vis21": ("topformer-base", (384, 640), 40),
    "mobileinst-seaformer-vis": ("seaformer-base", (384, 640), 40),
    "mobileinst-seaformer-vis21": ("seaformer-base", (384, 640), 40),
    "mobileinst-mobilenetv2-vis": ("mobilenetv2", (384, 640), 40),
    "mobileinst-mobilenetv2-vis21": ("mobilenetv2", (384, 640), 40),
}


TRAINED = ("mobileinst-demo", "mobileinst-creatures")


def test_the_zoo_holds_the_papers_models_and_the_trained_ones():
    assert set(zoo_ids()) == {*PAPERS, *TRAINED}


@pytest.mark.parametrize("model_id", PAPERS)
def test_the_papers_models_are_as_the_paper_says_and_untrained(model_id):
    entry = load_model_toml(model_id)
    config = entry.config
    assert entry.id == model_id
    assert (config.backbone, config.input_size, config.num_classes) == PAPERS[model_id]
    assert (config.num_queries, config.width, config.num_heads) == (100, 256, 8)
    assert (config.stages, config.pool, config.pool_size) == (("global", "local"), "max", 8)
    assert config.enhancer
    assert (entry.weights, entry.weights_sha256) == (None, None)


@pytest.mark.parametrize("model_id", PAPERS)
def test_the_papers_models_load_with_the_weights_of_their_seed(model_id):
    loaded = load_model(model_id)
    assert not loaded.trained
    assert loaded.model.description == load_model_toml(model_id).config


@pytest.mark.parametrize("year", ["vis", "vis21"])
def test_one_years_models_know_the_same_classes(year):
    ids = [model_id for model_id in PAPERS if model_id.endswith(f"-{year}")]
    assert len(ids) == 3
    assert len({load_model_toml(model_id).config.classes for model_id in ids}) == 1


@pytest.mark.parametrize("model_id", sorted([*PAPERS, *TRAINED]))
def test_every_model_has_a_card_that_says_whether_it_is_trained(model_id):
    card = (zoo_folder() / model_id / "MODEL_CARD.md").read_text().lower()
    if load_model_toml(model_id).weights is None:
        assert "random" in card or "no trained weights" in card


def test_models_is_data_only():
    assert not list(zoo_folder().rglob("*.py"))


def test_a_model_is_also_found_by_its_file_or_folder(tiny_toml: Path):
    assert load_model_toml(str(tiny_toml)).config == TINY
    assert load_model_toml(str(tiny_toml.parent)).config == TINY


@pytest.mark.parametrize("name", ["mobileinst-nano", "", "../models", "/", "none.toml"])
def test_a_model_that_is_nowhere_is_answered_with_what_there_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="mobileinst-topformer-vis"):
        load_model_toml(name)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: "=", "it is not TOML"),
        (lambda t: t.replace('id = "tiny"', ""), "it lacks id"),
        (lambda t: t.replace('"tiny"', "7"), "id is 7, not a text"),
        (lambda t: t.split("[config]")[0], "it lacks config"),
        (lambda t: "config = 1\n" + t.split("[config]")[0], "config is 1, not a table"),
        (lambda t: "colour = 1" + t, "it has the unknown field 'colour'"),
        (lambda t: "seed = 1.5" + t, "seed is 1.5, not a whole number"),
        (lambda t: "seed = true" + t, "seed is true, not a whole number"),
        (lambda t: "seed = -1" + t, "seed is -1, not a whole number from 0"),
        (lambda t: t + "depth = 3", "config has the unknown field 'depth'"),
        (lambda t: t.replace("width = 16", "width = 15"), "width 15 is not a multiple"),
        (lambda t: t + "[tolerance]\nslack = 1", "tolerance has the unknown field 'slack'"),
        (
            lambda t: t + "[tolerance]\natol = -1",
            "tolerance.atol is -1, not a finite number from 0",
        ),
        (lambda t: "tolerance = 1" + t, "tolerance is 1, not a table"),
        (lambda t: t + '[weights]\nfile = "w"', "weights lacks sha256"),
        (lambda t: t + '[weights]\nfile = "../w"\nsha256 = ""', "weights.sha256 is ''"),
        (
            lambda t: t + f'[weights]\nfile = "../w"\nsha256 = "{"0" * 64}"',
            "weights outside its folder",
        ),
    ],
)
def test_a_broken_model_toml_is_refused_with_its_name(tiny_toml: Path, edit, said):
    tiny_toml.write_text(edit(TINY_TOML))
    with pytest.raises(ConfigError, match=said) as caught:
        load_model_toml(str(tiny_toml))
    assert str(tiny_toml) in caught.value.cause


def test_a_file_that_is_no_text_is_refused(tiny_toml: Path):
    tiny_toml.write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="it is not TOML"):
        load_model_toml(str(tiny_toml))


def test_weights_are_known_by_their_sha256(tiny_toml: Path):
    weights = tiny_toml.with_name("w.safetensors")
    weights.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    tiny_toml.write_text(TINY_TOML + f'[weights]\nfile = "w.safetensors"\nsha256 = "{sha256}"')
    entry = load_model_toml(str(tiny_toml))
    assert (entry.weights, entry.weights_sha256) == (weights, sha256)
    weights.write_bytes(b"others")
    with pytest.raises(ConfigError, match="sha256 differs"):
        load_model_toml(str(tiny_toml))


def test_lost_weights_are_not_replaced_by_random_ones(tiny_toml: Path):
    tiny_toml.write_text(TINY_TOML + f'[weights]\nfile = "w.safetensors"\nsha256 = "{"0" * 64}"')
    assert load_model_toml(str(tiny_toml)).weights is None
    with pytest.raises(CheckpointError, match="the trained weights of tiny are missing"):
        load_model(str(tiny_toml))
