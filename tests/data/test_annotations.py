"""Annotation files: what is read, what is left out and counted, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from annotation_files import (
    BLOCK,
    CATEGORIES,
    HEIGHT,
    TRIANGLE,
    WIDTH,
    clips,
    pictures,
    plain,
    read_clips,
    read_pictures,
    write,
)
from pycocotools import mask as reference

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.masks import decode, encode
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.annotations import UNSEEN
from mobileinst_deploy.data.segmentation import (
    BROKEN,
    FEW_POINTS,
    FLAT,
    NO_AREA,
    NO_MASK,
    OUTSIDE,
    to_rle,
)

BLOCK[3:9, 5:15] = True


@pytest.mark.parametrize(
    "segmentation",
    [[TRIANGLE], [TRIANGLE, [25, 10, 31, 10, 31, 20, 25, 20]], [[-9, -9, 50, 3, 8, 30]]],
    ids=["polygon", "polygons", "polygon across the border"],
)
def test_polygons_are_rasterised_as_pycocotools_does(folder, segmentation):
    sample = read_pictures(folder, pictures({"segmentation": segmentation})).sample(0)
    theirs = reference.merge(reference.frPyObjects(segmentation, HEIGHT, WIDTH))
    assert encode(sample.masks[0])["counts"] == theirs["counts"].decode()


@pytest.mark.parametrize("form", [plain, encode])
def test_run_lengths_are_read_compressed_or_not(folder, form):
    sample = read_pictures(folder, pictures({"segmentation": form(BLOCK)})).sample(0)
    assert np.array_equal(sample.masks[0], BLOCK)
    assert sample.masks.dtype == bool


def test_a_sample_holds_what_the_file_says(folder):
    data = read_pictures(
        folder,
        pictures({"segmentation": [TRIANGLE]}, {"segmentation": plain(BLOCK), "iscrowd": 1}),
    )
    assert data.classes == ("dog", "cat"), "in the order of their numbers"
    sample = data.sample(0)
    assert sample.image_id == 11
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    assert sample.image[0, 0].tolist() == [200, 9, 9], "RGB"
    assert sample.labels.tolist() == [1, 1]
    assert sample.crowd.tolist() == [False, True]
    assert sample.track_ids.tolist() == [1, 2]
    empty = data.sample(1)
    assert empty.masks.shape == (0, HEIGHT, WIDTH)
    assert empty.labels.shape == (0,)


def test_a_models_classes_give_the_labels(folder):
    data = read_pictures(
        folder, pictures({"segmentation": [TRIANGLE]}), ("bird", "cat", "dog", "fish")
    )
    assert data.sample(0).labels.tolist() == [1]
    assert data.category_ids == (None, 7, 3, None)


def test_classes_that_the_model_lacks_are_named(folder):
    with pytest.raises(DatasetError) as error:
        read_pictures(folder, pictures({"segmentation": [TRIANGLE]}), ("dog", "horse"))
    assert "cat" in error.value.cause
    assert "horse" in error.value.cause


def test_a_clips_tracks_come_and_go(folder):
    data = read_clips(
        folder,
        clips(
            {"segmentations": [encode(BLOCK), None, plain(BLOCK)]},
            {"segmentations": [None, [TRIANGLE], None], "category_id": 7},
        ),
    )
    assert len(data) == 1
    assert data.length(0) == 3
    samples = list(data.clip(0))
    assert [s.track_ids.tolist() for s in samples] == [[1], [2], [1]]
    assert [s.labels.tolist() for s in samples] == [[0], [1], [0]]
    assert np.array_equal(samples[0].masks[0], BLOCK)
    assert {s.image_id for s in samples} == {2}


LEFT_OUT = [
    ({"segmentation": []}, NO_MASK),
    ({"segmentation": None}, NO_MASK),
    ({}, NO_MASK),
    ({"segmentation": [[1, 2, 3, 4]]}, FEW_POINTS),
    ({"segmentation": TRIANGLE}, FLAT),
    ({"segmentation": [[5, 5, 9, 5, 14, 5]]}, NO_AREA),
    ({"segmentation": [[5.1, 5, 5.2, 5, 5.2, 20, 5.1, 20]]}, NO_AREA),
    ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}}, NO_AREA),
    ({"segmentation": [[40, 4, 60, 4, 60, 20]]}, OUTSIDE),
    ({"segmentation": [[-30, 4, -1, 4, -1, 20]]}, OUTSIDE),
    ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, BROKEN),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, BROKEN),
    ({"segmentation": [[1, 2, 3, 4, 5, 1e999]]}, BROKEN),
    ({"segmentation": [5]}, FLAT),
    ({"segmentation": "mask.png"}, BROKEN),
    ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3, 4]}}, BROKEN),
    ({"segmentation": encode(BLOCK.T)}, BROKEN),
]


@pytest.mark.parametrize(("annotation", "reason"), LEFT_OUT, ids=lambda v: str(v)[:60])
def test_an_annotation_that_shows_nothing_is_left_out_and_counted(folder, annotation, reason):
    document = pictures(annotation, {"segmentation": [TRIANGLE]})
    data = read_pictures(folder, document)
    assert dict(data.left_out.counts) == {reason: 1}
    assert data.sample(0).track_ids.tolist() == [2]


def test_a_track_without_any_mask_shows_nothing_and_is_counted_apart(folder):
    """YouTube-VIS counts it as an object that was not found."""
    data = read_clips(folder, clips({"segmentations": [None] * 3}, {"segmentations": None}))
    assert dict(data.left_out.counts) == {}
    assert dict(data.catalogue.unseen.counts) == {UNSEEN: 2}
    assert len(data.media[0].unseen) == 2
    assert data.media[0].objects == []
    assert len(data.sample(0, 1).labels) == 0


@pytest.mark.parametrize(
    "ids", [str, float, lambda n: f"0{n}"], ids=["text", "floats", "leading zero"]
)
def test_numbers_of_things_may_be_text_or_whole_floats(folder, ids):
    document = pictures({"segmentation": [TRIANGLE]})
    for annotation in document["annotations"]:
        annotation.update({k: ids(annotation[k]) for k in ("id", "image_id", "category_id")})
    data = read_pictures(folder, document)
    assert data.sample(0).track_ids.tolist() == [1]


@pytest.mark.parametrize("value", ["a", "-1", "", 1.5, 1e300, True, None, [1], "9" * 40])
@pytest.mark.parametrize(
    ("table", "field"),
    [("images", "id"), ("annotations", "image_id"), ("categories", "id")],
)
def test_any_other_number_is_refused_by_field_and_entry(folder, table, field, value):
    document = pictures({"segmentation": [TRIANGLE]})
    document[table][0][field] = value
    with pytest.raises(DatasetError, match=rf"annotations\.json: {table}\[0\]\.{field} is "):
        read_pictures(folder, document)


@pytest.mark.parametrize(
    ("value", "says"),
    [(0, False), (1, True), (False, False), (True, True), ("0", False), ("1", True), (None, False),
     (1.0, True)],
)  # fmt: skip
def test_iscrowd_is_understood_as_people_write_it(folder, value, says):
    document = pictures({"segmentation": [TRIANGLE], "iscrowd": value})
    assert read_pictures(folder, document).sample(0).crowd.tolist() == [says]


@pytest.mark.parametrize("value", ["no", 2, -1, 0.5, "true", [], {}])
def test_any_other_iscrowd_is_refused_by_entry(folder, value):
    document = pictures({"segmentation": [TRIANGLE]}, {"segmentation": [TRIANGLE]})
    document["annotations"][1]["iscrowd"] = value
    with pytest.raises(DatasetError, match=r"annotations\[1\]\.iscrowd is "):
        read_pictures(folder, document)


@pytest.mark.parametrize(
    "unused",
    [
        {"id": 0, "name": "_background_"},
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 0, "name": "cat"},
        {"id": 3, "name": "hound"},
    ],
    ids=["labelme", "roboflow", "same name", "same number"],
)
def test_a_category_that_nothing_uses_never_refuses_a_file(folder, unused):
    document = pictures({"segmentation": [TRIANGLE]})
    document["categories"] = [unused, *CATEGORIES]
    assert read_pictures(folder, document, ("cat", "bird")).sample(0).labels.tolist() == [0]


@pytest.mark.parametrize("annotations", [{"annotations": None}, {"annotations": []}, {}])
def test_a_split_whose_annotations_are_kept_back_is_read_and_good_for_nothing(folder, annotations):
    for read, document in ((read_pictures, pictures()), (read_clips, clips())):
        document.pop("annotations")
        data = read(folder, {**document, **annotations})
        assert len(data) == len(data.media)
        with pytest.raises(DatasetError, match="nothing to train on: it has no annotations"):
            data.catalogue.require_objects("train on")


@pytest.mark.parametrize(
    ("annotation", "said", "next_step"),
    [
        ({"bbox": [1, 1, 5, 5]}, "1 annotation without a mask, such as annotations[0] of a.png",
         "boxes are not enough"),
        ({"segmentation": [[1, 1, 5, 5]]}, "fewer than three points", "boxes are not enough"),
        ({"segmentation": TRIANGLE}, "flat list", "list of polygons"),
        ({"segmentation": [TRIANGLE], "iscrowd": "1"}, "1 region of many objects", "iscrowd to 0"),
    ],
)  # fmt: skip
def test_where_nothing_is_left_the_reasons_are_told(folder, annotation, said, next_step):
    data = read_pictures(folder, pictures(annotation))
    with pytest.raises(DatasetError) as caught:
        data.catalogue.require_objects("evaluate on")
    assert said in caught.value.cause
    assert next_step in caught.value.next_step


def test_numbers_that_are_none_stand_for_nothing(folder):
    text = json.dumps(pictures({"segmentation": [TRIANGLE], "area": float("nan")}))
    text = text.replace("a.png", "NaN.png")
    (folder / "a.png").rename(folder / "NaN.png")
    data = AnnotatedSet(folder, write(folder, text))
    assert data.media[0].objects[0].area is None
    assert data.media[0].files == ("NaN.png",)


@pytest.mark.parametrize(
    ("table", "field", "value", "place"),
    [
        ("annotations", "area", 10**400, r"annotations\[0\]\.area"),
        ("images", "width", 10**9, r"images\[0\]\.width is 1000000000, not a whole number from 1"),
        ("images", "file_name", "a/" * 3000, r"images\[0\]\.file_name"),
        ("images", "file_name", "a" * 300, r"images\[0\]\.file_name"),
        ("categories", "name", 7, r"categories\[0\]\.name is 7, not a text"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_its_place(folder, table, field, value, place):
    document = pictures({"segmentation": [TRIANGLE]})
    document[table][0][field] = value
    with pytest.raises(DatasetError, match=place):
        read_pictures(folder, document)


def test_objects_of_one_number_in_one_picture_are_told_apart(folder):
    both = [{"id": 0, "segmentation": [TRIANGLE]}, {"id": 0, "segmentation": plain(BLOCK)}]
    assert len(set(read_pictures(folder, pictures(*both)).sample(0).track_ids.tolist())) == 2


shared = Path(os.environ.get("MOBILEINST_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.mark.shared_data
@pytest.mark.skipif(not (shared / "data" / "coco_mini").is_dir(), reason="no shared/data/coco_mini")
def test_real_annotations_are_read_as_pycocotools_reads_them():
    folder = shared / "data" / "coco_mini"
    data = AnnotatedSet(folder / "val2017", folder / "instances_val.json")
    document = json.loads((folder / "instances_val.json").read_text())
    assert not data.left_out.counts
    assert len(data.classes) == 80
    objects = {a.id: (medium, a) for medium in data.media for a in medium.objects}
    assert len(objects) == len(document["annotations"])
    for annotation in document["annotations"]:
        medium, mine = objects[annotation["id"]]
        segmentation = annotation["segmentation"]
        theirs = reference.frPyObjects(segmentation, *medium.size)
        if isinstance(theirs, list):
            theirs = reference.merge(theirs)
        assert to_rle(mine.segmentations[0], medium.size)["counts"] == theirs["counts"].decode()
    sample = data.sample(0)
    drawn = [decode(to_rle(a.segmentations[0], data.media[0].size)) for a in data.media[0].objects]
    assert np.array_equal(sample.masks, np.stack(drawn))
