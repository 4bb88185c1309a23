"""``mobileinst train`` as a user meets it."""

import json

import pytest
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app

MODEL = """
id = "tiny"
[config]
backbone = "topformer-tiny"
classes = ["disc", "square", "triangle", "star", "ring", "cross"]
input_size = [64, 64]
num_queries = 6
width = 16
num_heads = 2
"""
RECIPE = """
model = "model.toml"
threads = 1
log_every = 1
[data]
validation_clips = 2
frames = 6
[[stages]]
kind = "image"
iterations = 2
batch = 2
lr = 1e-3
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "model.toml").write_text(MODEL)
    path = tmp_path / "train.toml"
    path.write_text(RECIPE)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def words(result):
    """What people saw, without line breaks."""
    return " ".join(result.stderr.split())


def test_a_recipe_becomes_weights_and_a_report(recipe, tmp_path):
    result = run("--config", recipe, "-o", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["iterations"] == 2
    assert report["samples"] == 4
    assert "AP" in report["metrics"]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "held-out AP" in words(result)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (RECIPE.replace("lr", "learning_rate"), "learning_rate"),
        (RECIPE.replace('"model.toml"', '"nothing"'), "no model 'nothing'"),
        (RECIPE.replace('kind = "image"', 'kind = "sound"'), "sound"),
    ],
)
def test_a_wrong_recipe_leaves_nothing_behind(recipe, tmp_path, text, cause):
    recipe.write_text(text)
    result = run("--config", recipe, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert cause in words(result)
    assert not (tmp_path / "run").exists()


def test_a_second_run_into_one_folder_must_be_meant(recipe, tmp_path):
    assert run("--config", recipe, "-o", tmp_path / "run").exit_code == 0
    again = run("--config", recipe, "-o", tmp_path / "run")
    assert again.exit_code == 2
    assert "--resume" in words(again)
    resumed = run("--config", recipe, "-o", tmp_path / "run", "--resume", "--json")
    assert resumed.exit_code == 0
    assert json.loads(resumed.stdout)["samples"] == 0


def test_weights_of_another_model_are_refused(recipe, tmp_path):
    assert run("--config", recipe, "-o", tmp_path / "run").exit_code == 0
    (tmp_path / "model.toml").write_text(MODEL.replace("= 16", "= 32"))
    weights = tmp_path / "run" / "model.safetensors"
    result = run("--config", recipe, "-o", tmp_path / "other", "--weights", weights)
    assert result.exit_code == 2
    assert "width" in words(result)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(recipe, tmp_path):
    result = run("--config", recipe, "-o", tmp_path / "run", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    (stage,) = json.loads(result.stdout)["stages"]
    assert (stage["iterations"], stage["samples"], stage["size"]) == (2, 4, [64, 64])
    assert stage["step_seconds"] > 0
    assert not (tmp_path / "run").exists()


def test_a_dry_run_checks_what_the_run_would_begin_with_and_says_it(recipe, tmp_path):
    dry = ("--config", recipe, "-o", tmp_path / "run", "--dry-run")
    assert "It begins with the random weights of seed 0" in run(*dry).output
    for option in ("--init", "--weights"):
        refused = run(*dry, option, tmp_path / "nothing.pth")
        assert refused.exit_code == 2
        assert "nothing.pth" in words(refused)
    assert "Give one of them" in words(run(*dry, "--init", recipe, "--weights", recipe))
    assert run("--config", recipe, "-o", tmp_path / "run").exit_code == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    assert "holds a run already" in words(run(*dry))
    told = run(*dry, "--resume", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["iteration"] == 2
    assert "It goes on at iteration 2 of 2" in words(told)
    other = run(*dry, "--resume", "--set", "stages.0.iterations=3")
    assert other.exit_code == 2
    assert "another training configuration" in words(other)
    weights = tmp_path / "run" / "model.safetensors"
    begun = run(*dry[:2], "-o", tmp_path / "other", "--dry-run", "--weights", weights)
    assert f"It begins with {weights}" in begun.output.replace("\n", "")
    (tmp_path / "run" / "training.pt").write_bytes(b"nonsense")
    assert run(*dry, "--resume").exit_code == 2
    (tmp_path / "run" / "training.pt").write_bytes(before["training.pt"])
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_a_dry_run_without_the_data_leaves_the_length_of_epochs_open(recipe, tmp_path):
    coco = [
        'data.kind="coco"', 'data.annotations="none.json"', 'data.images="none"',
        "stages.0.iterations=0", "stages.0.epochs=12",
    ]  # fmt: skip
    changes = [word for change in coco for word in ("--set", change)]
    result = run("--config", recipe, "-o", tmp_path / "run", "--dry-run", *changes)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert "12 epochs" in shown
    assert "the data is not here" in shown


def test_a_video_training_starts_from_weights_of_other_classes(recipe, tmp_path):
    assert run("--config", recipe, "-o", tmp_path / "coco").exit_code == 0
    other = tmp_path / "other.toml"
    other.write_text(MODEL.replace('"cross"', '"heart"').replace('id = "tiny"', 'id = "other"'))
    weights = tmp_path / "coco" / "model.safetensors"
    shapes = ["--weights", weights, "--set", f'model="{other.name}"']
    refused = run("--config", recipe, "-o", tmp_path / "vis", *shapes)
    assert refused.exit_code == 2  # drawn shapes have their own classes
    assert "classes" in words(refused)


def test_a_run_beside_recipe_and_output_is_refused(recipe, tmp_path):
    result = run(tmp_path / "other", "--config", recipe, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "not needed beside --config and -o" in words(result)
    assert not (tmp_path / "run").exists()
