"""Annotation files: what is read, what is left out and counted, and what is refused."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pycocotools import mask as reference

from mobileinst_deploy.core.errors import DatasetError, MediaError
from mobileinst_deploy.core.masks import decode, encode, rle_runs
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

HEIGHT, WIDTH = 24, 32
SIZE = {"height": HEIGHT, "width": WIDTH}
TRIANGLE = [4.0, 4.0, 20.0, 4.0, 4.0, 16.0]
BLOCK = np.zeros((HEIGHT, WIDTH), bool)
BLOCK[3:9, 5:15] = True
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def plain(mask: np.ndarray) -> dict[str, Any]:
    rle = encode(mask)
    return {"size": rle["size"], "counts": rle_runs(rle).tolist()}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.png", "v/0.png", "v/1.png", "v/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture = np.full((HEIGHT, WIDTH, 3), 9, np.uint8)
        picture[..., 2] = 200  # red in OpenCV's order
        cv2.imwrite(str(tmp_path / name), picture)
    return tmp_path


def pictures(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [
            {"id": 11, "file_name": "a.png", **SIZE},
            {"id": 5, "file_name": "b.png", **SIZE},
        ],
        "annotations": [
            {"id": i + 1, "image_id": 11, "category_id": 7, **a} for i, a in enumerate(annotations)
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def clips(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "videos": [{"id": 2, "file_names": ["v/0.png", "v/1.png", "v/2.png"], **SIZE}],
        "annotations": [
            {"id": i + 1, "video_id": 2, "category_id": 3, "iscrowd": 0, **a}
            for i, a in enumerate(annotations)
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def write(folder: Path, document: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def read_pictures(folder: Path, document: Any, classes: Any = None) -> AnnotatedSet:
    return AnnotatedSet(folder, write(folder, document), classes)


def read_clips(folder: Path, document: Any, classes: Any = None) -> AnnotatedSet:
    return AnnotatedSet(folder, write(folder, document), classes, clips=True)


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
        ({"bbox": [1, 1, 5, 5]}, "1 annotations without a mask, such as annotations[0] of a.png",
         "boxes are not enough"),
        ({"segmentation": [[1, 1, 5, 5]]}, "fewer than three points", "boxes are not enough"),
        ({"segmentation": TRIANGLE}, "flat list", "list of polygons"),
        ({"segmentation": [TRIANGLE], "iscrowd": "1"}, "1 regions of many objects", "iscrowd to 0"),
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


def broken(change: Any, of: Any = pictures) -> dict[str, Any]:
    first = {"segmentation": [TRIANGLE]} if of is pictures else {"segmentations": [None] * 3}
    document = copy.deepcopy(of(first))
    change(document)
    return document


REFUSED = {
    "no JSON": "{",
    "cut short": json.dumps(pictures({"segmentation": [TRIANGLE]}))[:-40],
    "empty": "",
    "a list": "[]",
    "deep": "[" * 200_000,
    "no images": broken(lambda d: d.pop("images")),
    "annotations no list": broken(lambda d: d.update(annotations={})),
    "categories no list": broken(lambda d: d.update(categories={})),
    "no categories": broken(lambda d: d["categories"].clear()),
    "category twice": broken(lambda d: d["categories"].append({"id": 7, "name": "cow"})),
    "category name used twice": broken(
        lambda d: (
            d["categories"].append({"id": 8, "name": "cat"}),
            d["annotations"].append({**d["annotations"][0], "id": 9, "category_id": 8}),
        )
    ),
    "category without a name": broken(lambda d: d["categories"].append({"id": 8})),
    "unknown category": broken(lambda d: d["annotations"][0].update(category_id=99)),
    "unknown image": broken(lambda d: d["annotations"][0].update(image_id=99)),
    "image twice": broken(lambda d: d["images"].append(d["images"][0])),
    "image without a size": broken(lambda d: d["images"][0].pop("width")),
    "image of no size": broken(lambda d: d["images"][0].update(width=0)),
    "size as text": broken(lambda d: d["images"][0].update(width="32")),
    "image no object": broken(lambda d: d["images"].append(4)),
    "annotation no object": broken(lambda d: d["annotations"].append(None)),
    "path upwards": broken(lambda d: d["images"][0].update(file_name="../a.png")),
    "absolute path": broken(lambda d: d["images"][0].update(file_name="/etc/passwd")),
    "missing picture": broken(lambda d: d["images"][0].update(file_name="zebra.png")),
    "missing folder": broken(lambda d: d["images"][0].update(file_name="no/zebra.png")),
    "in the other form": clips(),
}


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_contradicts_itself_is_refused_in_a_sentence(folder, document):
    with pytest.raises(DatasetError) as error:
        read_pictures(folder, document)
    assert "\n" not in str(error.value)
    assert "annotations.json" in error.value.cause


@pytest.mark.parametrize(
    "document",
    [
        broken(lambda d: d["annotations"][0].update(segmentations=[None]), clips),
        broken(lambda d: d["annotations"][0].update(video_id=9), clips),
        broken(lambda d: d["videos"][0].update(file_names=[]), clips),
        broken(lambda d: d["videos"][0].update(file_names="v/0.png"), clips),
        broken(lambda d: d["videos"][0].update(file_names=["v/0.png", "v/9.png"]), clips),
        pictures(),
    ],
    ids=["too few masks", "unknown video", "no frames", "frames no list", "missing", "pictures"],
)
def test_a_clip_file_that_contradicts_itself_is_refused(folder, document):
    with pytest.raises(DatasetError):
        read_clips(folder, document)


def test_missing_files_are_refused_in_a_sentence(folder):
    with pytest.raises(DatasetError, match="cannot be read"):
        AnnotatedSet(folder, folder / "none.json")
    with pytest.raises(DatasetError, match="not a folder"):
        AnnotatedSet(folder / "none", write(folder, pictures()))


def test_a_missing_picture_is_named_with_how_many_there_are(folder):
    (folder / "b.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of the 2 pictures .* first is b\.png"):
        read_pictures(folder, pictures())


def test_a_picture_that_cannot_be_read_fails_alone(folder):
    """So that training can go on with the others."""
    data = read_pictures(folder, pictures())
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(MediaError):
        data.sample(0)
    assert data.sample(1).image.shape == (HEIGHT, WIDTH, 3)


def test_a_picture_of_another_size_is_refused(folder):
    document = pictures()
    document["images"][0]["height"] += 1
    with pytest.raises(MediaError, match="24x32"):
        read_pictures(folder, document).sample(0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "size", "counts", "name"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    where=st.sampled_from(
        [
            ("images", "id"),
            ("images", "file_name"),
            ("images", "height"),
            ("annotations", "segmentation"),
            ("annotations", "image_id"),
            ("annotations", "category_id"),
            ("annotations", "id"),
            ("annotations", "area"),
            ("categories", "id"),
            ("categories", "name"),
        ]
    ),
    value=json_values,
)
def test_whatever_a_field_holds_the_answer_is_data_or_a_sentence(folder, where, value):
    document = pictures({"segmentation": [TRIANGLE]})
    document[where[0]][0][where[1]] = value
    try:
        data = read_pictures(folder, document)
        sample = data.sample(0)
    except (DatasetError, MediaError):  # a size that the picture does not have is told at the look
        return
    assert len(sample.masks) + sum(data.left_out.counts.values()) == 1


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
