"""train.toml: what it may say, and what makes two runs the same run."""

from dataclasses import replace
from itertools import pairwise

import pytest

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.zoo import load_model_toml, zoo_folder
from mobileinst_deploy.training.config import (
    DataConfig,
    LossConfig,
    PicturesConfig,
    StageConfig,
    TrainConfig,
    read_train_config,
)

STAGE = StageConfig("image", 2, 1e-3, 100)
GOOD = """
model = "m"
ema = 0
[data]
clips = 3
[[stages]]
kind = "image"
iterations = 10
batch = 2
lr = 1
[[stages]]
kind = "video"
iterations = 5
batch = 1
lr = 0.5
query_passing = true
"""


def test_a_recipe_is_read_with_its_defaults(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(GOOD)
    config = read_train_config(path)
    assert [s.kind for s in config.stages] == ["image", "video"]
    assert config.iterations == 15
    assert config.backbone_lr == 0.5
    assert config.losses == LossConfig(2.0, 2.0, 1.0)
    assert config.stage_at(9) == (0, 9)
    assert config.stage_at(10) == (1, 0)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("clips = 3", "clip = 3", "data has the unknown field 'clip'"),
        ("clips = 3", "clips = 0", "data.clips"),
        ("clips = 3", "clips = '3'", "data.clips is '3', not a whole number from 1"),
        ("clips = 3", 'kind = "cocoa"', "data.kind"),
        ("clips = 3", "repeat = 0.3", "data.repeat is set"),
        ("clips = 3", 'kind = "coco"', "needs data.annotations"),
        ("lr = 1", "lr = nan", r"stages\[0\].lr is nan"),
        ("lr = 1", "", "lr"),
        ("lr = 1", "lr = 1\nquery_passing = true", "query_passing"),
        ("lr = 1", "lr = 1\npictures = {batch = 2}", "pictures is set for a stage on pictures"),
        ("passing = true", "passing = true\npictures = {batch = 0}", "pictures.batch is 0"),
        (
            "passing = true",
            "passing = true\npictures = {batch = 2, zoom = [0.5, 1]}",
            "zoom is .* with size",
        ),
        ("lr = 1", "lr = 1\nshort_sides = 640", "not a list"),
        ("lr = 1", "lr = 1\nsize = [100, 100]", "multiples of 64"),
        ('model = "m"', "", "model"),
        ("ema = 0", "ema = 1.5", "ema"),
        ("[[stages]]", "[stages]", "TOML"),
        ("ema = 0", "ema = ", "TOML"),
        ("[data]\nclips = 3", "data = 3", "not a table"),
    ],
)
def test_a_wrong_recipe_is_refused_in_a_sentence(tmp_path, old, new, cause):
    path = tmp_path / "train.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError, match=cause):
        read_train_config(path)


def test_a_missing_recipe_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.toml"):
        read_train_config(tmp_path / "train.toml")


def test_step_decay_follows_the_paper():
    coco = StageConfig("image", 64, 1e-4, 270_000, decay_at=(210_000, 250_000))
    rates = [coco.lr_at(i) for i in (0, 209_999, 210_000, 249_999, 250_000, 269_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])


def test_warmup_rises_and_cosine_falls_to_a_hundredth():
    stage = replace(STAGE, schedule="cosine", warmup=10)
    rates = [stage.lr_at(i) for i in range(100)]
    assert rates[:10] == pytest.approx([1e-4 * (i + 1) for i in range(10)])
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(1e-5, rel=0.05)


def test_a_stage_on_pairs_says_how_its_pictures_are_varied():
    pictures = PicturesConfig(6, size=(64, 128), zoom=(0.5, 2.0))
    stage = replace(STAGE, kind="video", query_passing=True, pictures=pictures)
    assert stage.samples == STAGE.batch + 6
    alone = stage.on_pictures()
    assert (alone.kind, alone.batch, alone.zoom) == ("image", 6, (0.5, 2.0))
    assert replace(stage, pictures=None).on_pictures() is None
    assert STAGE.on_pictures() is STAGE


def test_pasting_needs_the_zoom_of_the_pictures_beside_pairs():
    data = DataConfig("cutouts", "a.json", "images", paste=2)
    stage = replace(STAGE, kind="video", pictures=PicturesConfig(2))
    with pytest.raises(ConfigError, match="no zoom"):
        TrainConfig("m", (stage,), data)
    zoomed = PicturesConfig(2, size=(64, 64), zoom=(0.5, 1.0))
    TrainConfig("m", (replace(stage, pictures=zoomed),), data)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"log_every": 1, "save_every": 1, "evaluate_every": 7, "threads": 2}, True),
        ({"data": DataConfig(workers=3)}, True),
        ({"seed": 1}, False),
        ({"stages": (replace(STAGE, batch=3),)}, False),
        ({"data": DataConfig(flip=False)}, False),
        ({"losses": LossConfig(class_weight=1)}, False),
    ],
)
def test_only_what_changes_the_losses_makes_another_run(change, same):
    config = TrainConfig("m", (STAGE,))
    assert (replace(config, **change).fingerprint() == config.fingerprint()) is same


@pytest.mark.parametrize(
    "path",
    sorted(zoo_folder().glob("*/train*.toml"))
    + sorted(zoo_folder().parent.glob("docs/recipes/*/train*.toml")),
    ids=str,
)
def test_every_recipe_of_the_zoo_can_be_read_and_names_a_model(path):
    config = read_train_config(path)
    entry = load_model_toml(str(path.parent / config.model))
    if any(stage.query_passing for stage in config.stages):
        assert entry.config.stages == ("global", "local")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("stages.0.batch=8", lambda c: c.stages[0].batch == 8),
        ("stages.1.query_passing=false", lambda c: not c.stages[1].query_passing),
        ("data.workers = 3", lambda c: c.data.workers == 3),
        ("losses.mask_stride=4", lambda c: c.losses.mask_stride == 4),
        ('model="other"', lambda c: c.model == "other"),
    ],
)
def test_a_field_is_changed_from_outside(tmp_path, change, found):
    path = tmp_path / "train.toml"
    path.write_text(GOOD)
    assert found(read_train_config(path, [change]))


@pytest.mark.parametrize(
    "change",
    ["", "batch", "=3", "stages.9.batch=3", "stages.x.batch=3", "seed=", "seed=[", "seed.a=3",
     "unknown=1", "stages.0.unknown=1", "stages..batch=1", "stages=3"],
)  # fmt: skip
def test_a_change_that_changes_nothing_sensible_is_refused(tmp_path, change):
    path = tmp_path / "train.toml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError):
        read_train_config(path, [change])


def test_epochs_become_steps_by_the_frames_of_the_data_and_the_samples_of_a_step():
    stage = StageConfig("video", 4, 5e-5, epochs=12, decay_at=(8, 11))
    config = TrainConfig("m", (stage,), accumulate=2)
    counted = config.counted(frames=6400, processes=8).stages[0]
    assert (counted.iterations, counted.decay_at) == (1200, (800, 1100))
    assert [round(counted.lr_at(i) * 1e7) for i in (0, 799, 800, 1100)] == [500, 500, 50, 5]


def test_a_stage_counted_in_steps_stays_as_it_is():
    assert STAGE.counted(999, 8) == STAGE


@pytest.mark.parametrize("length", [{}, {"iterations": 3, "epochs": 1.0}, {"epochs": -1.0}])
def test_a_stage_is_as_long_as_its_steps_or_its_epochs_say(length):
    with pytest.raises(ConfigError):
        StageConfig("image", 2, 1e-3, **length)


RECIPES = sorted(p.parent.name for p in zoo_folder().glob("mobileinst-*/train.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_the_zoo_is_sound_and_for_its_own_model(name):
    config = read_train_config(zoo_folder() / name / "train.toml")
    entry = load_model_toml(name)
    assert config.model in ("model.toml", name)
    if any(s.query_passing for s in config.stages):
        assert entry.config.stages == ("global", "local")


@pytest.mark.parametrize("name", [n for n in RECIPES if n.endswith("-640")])
def test_the_coco_recipe_is_the_papers(name):
    (stage,) = read_train_config(zoo_folder() / name / "train.toml").stages
    assert (stage.iterations, stage.decay_at, stage.lr) == (270_000, (210_000, 250_000), 1e-4)
    assert (stage.short_sides[0], stage.short_sides[-1], stage.long_side) == (416, 640, 864)
    assert stage.batch * 8 == 64


@pytest.mark.parametrize("name", [n for n in RECIPES if "-vis" in n])
def test_the_video_recipe_is_the_papers(name):
    (stage,) = read_train_config(zoo_folder() / name / "train.toml").stages
    assert (stage.epochs, stage.decay_at, stage.lr) == (12, (8, 11), 5e-5)
    assert stage.short_sides == (360,)
    assert stage.query_passing
