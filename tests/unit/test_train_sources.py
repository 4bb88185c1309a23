"""Where clips come from: the same pictures and instances whatever they are stored as."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.data.shapes import CLASSES
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE, write_shapes
from mobileinst_deploy.training.config import DataConfig, LossConfig, StageConfig
from mobileinst_deploy.training.data import Samples
from mobileinst_deploy.training.loading import batches
from mobileinst_deploy.training.sources import (
    ShapesSource,
    open_sources,
    repeat_weights,
    stills_of,
)

MODEL = ModelConfig("topformer-tiny", CLASSES, (64, 128), num_queries=6, width=16, num_heads=2)
DRAWN = ShapesSource("val", 0, 2, 4, (64, 128))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, "val", 2, 4, (64, 128), suffix=".png")
    return folder


def opened(folder, kind, annotations, **more):
    data = DataConfig(kind=kind, annotations=annotations, images=FRAMES, **more)
    return open_sources(data, folder, MODEL)


def test_clips_on_disk_are_the_clips_that_were_drawn(folder):
    source, held_out = opened(folder, "ytvis", YTVIS_FILE)
    assert held_out is None
    assert (len(source), source.length(1), source.classes) == (2, 4, CLASSES)
    for frames in ([0], [3, 1]):
        stored, drawn = source.read(1, frames), DRAWN.read(1, frames)
        assert np.array_equal(stored.images, drawn.images)
        assert np.array_equal(stored.labels, drawn.labels)
        assert np.array_equal(stored.masks, drawn.masks)


def test_pictures_are_clips_of_one_frame(folder):
    source, held_out = opened(folder, "coco", COCO_FILE, validation_annotations=COCO_FILE)
    assert len(source) == len(held_out) == 8
    assert source.length(5) == 1
    stored, drawn = source.read(5, [0]), DRAWN.read(1, [1])
    assert np.array_equal(stored.images, drawn.images)
    assert np.array_equal(stored.masks, drawn.masks)


def test_pairs_from_pictures_are_the_picture_twice(folder):
    source, _ = opened(folder, "coco", COCO_FILE)
    stage = StageConfig("video", 1, 1e-3, 1)
    batch = next(batches(Samples(source, DataConfig(), stage, (0, 0), 1), LossConfig(), 1, 0))
    assert batch.images[0].equal(batch.images[1])
    assert batch.targets[0].masks.equal(batch.later[0].masks)


def test_crowds_are_left_out(folder, tmp_path):
    document = json.loads((folder / COCO_FILE).read_text())
    for annotation in document["annotations"][::2]:
        annotation["iscrowd"] = 1
    (folder / "crowded.json").write_text(json.dumps(document))
    whole, _ = opened(folder, "coco", COCO_FILE)
    crowded, _ = opened(folder, "coco", "crowded.json")
    count = [sum(len(s.read(i, [0]).labels) for i in range(8)) for s in (whole, crowded)]
    assert count[1] == count[0] // 2


def test_a_torn_picture_is_replaced_and_counted(folder):
    copy = folder / FRAMES / "00000" / "00000.png"
    content = copy.read_bytes()
    try:
        copy.write_bytes(content[:100])
        source, _ = opened(folder, "coco", COCO_FILE)
        samples = Samples(source, DataConfig(), StageConfig("image", 1, 1e-3, 1), (0, 0), 50)
        assert sum(samples[i].unreadable for i in range(50)) > 0
    finally:
        copy.write_bytes(content)


@pytest.mark.parametrize("kind", ["coco", "ytvis"])
def test_classes_that_the_model_lacks_are_refused(folder, kind):
    data = DataConfig(
        kind=kind, annotations=YTVIS_FILE if kind == "ytvis" else COCO_FILE, images=FRAMES
    )
    with pytest.raises(DatasetError, match="classes that the model does not have"):
        open_sources(data, folder, ModelConfig("topformer-tiny", ("disc",), (64, 128)))


def test_shapes_need_no_files(tmp_path):
    source, held_out = open_sources(DataConfig(clips=7, validation_clips=0), tmp_path, MODEL)
    assert (len(source), held_out) == (7, None)
    assert source.read(0, [0]).images.shape == (1, 64, 128, 3)


@pytest.mark.shared_data
def test_coco_pictures_train():
    root = Path(os.environ.get("MOBILEINST_SHARED", Path(__file__).parents[3] / "shared"))
    if not (root / "data" / "coco_mini").is_dir():
        pytest.skip("the shared pictures are not here")
    from mobileinst_deploy.core.zoo import load_model_toml
    from mobileinst_deploy.training.config import read_train_config

    recipe = Path(__file__).parents[2] / "docs" / "recipes" / "coco_mini"
    config = read_train_config(recipe / "train.toml")
    model = load_model_toml(str(recipe / "model.toml")).config
    source, _ = open_sources(config.data, root / "data" / "coco_mini", model)
    assert len(source) == 337
    samples = Samples(source, config.data, config.stages[0], (0, 0), 8)
    batch = next(batches(samples, config.losses, 8, 0))
    assert batch.images.shape[0] == 8
    assert min(batch.images.shape[2:]) >= 192
    assert sum(len(target.labels) for target in batch.targets) > 0


def test_cut_out_clips_are_made_for_training_and_for_validation(tmp_path):
    write_shapes(tmp_path, "val", 2, 4, (192, 320))
    held_out = {"validation_annotations": COCO_FILE, "validation_clips": 3}
    source, apart = opened(tmp_path, "cutouts", COCO_FILE, clips=5, frames=6, **held_out)
    assert (len(source), len(apart)) == (5, 3)
    assert (source.length(0), source.classes) == (6, CLASSES)
    frames = source.read(4, [0, 5])
    assert frames.images.shape == (2, 64, 128, 3)
    assert frames.masks.shape == (len(frames.labels), 2, 64, 128)
    assert not np.array_equal(frames.images, apart.read(1, [0, 5]).images)


def test_pictures_beside_cut_out_clips_are_their_photographs(tmp_path):
    write_shapes(tmp_path, "val", 2, 4, (192, 320))
    source, _ = opened(tmp_path, "cutouts", COCO_FILE, clips=5, frames=6)
    photographs, _ = opened(tmp_path, "coco", COCO_FILE)
    stills = stills_of(source)
    assert len(stills) == len(photographs) == 8
    assert np.array_equal(stills.read(3, [0]).masks, photographs.read(3, [0]).masks)
    assert stills_of(photographs) is photographs


def test_pictures_with_rare_classes_are_drawn_more_often(tmp_path):
    """Of ten pictures all show a disc, four a square, one a star, and one a crowd of crosses."""
    polygon = [[1, 1, 30, 1, 30, 30]]
    shows = {"disc": range(10), "square": range(4), "star": [3], "cross": [9]}
    annotations = [
        {"id": 100 * CLASSES.index(name) + i, "image_id": i, "category_id": CLASSES.index(name)}
        | {"segmentation": polygon, "area": 400, "bbox": [1, 1, 29, 29]}
        | {"iscrowd": int(name == "cross")}
        for name, pictures in shows.items()
        for i in pictures
    ]
    for each in annotations:
        if each["iscrowd"]:
            each["segmentation"] = {"size": [64, 128], "counts": [0, 64, 64 * 127]}
    document = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": 64, "width": 128} for i in range(10)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    (tmp_path / FRAMES).mkdir()
    for i in range(10):
        (tmp_path / FRAMES / f"{i}.jpg").touch()
    source, _ = opened(tmp_path, "coco", "a.json")
    once, twice = 1.0, np.sqrt(0.4 / 0.1)
    np.testing.assert_allclose(repeat_weights(source, 0.4), [once, once, once, twice, *[once] * 6])
    np.testing.assert_allclose(repeat_weights(source, 0.9)[:3], np.sqrt(0.9 / 0.4))
    assert repeat_weights(source, 0.0) is None
    assert repeat_weights(DRAWN, 0.4) is None
