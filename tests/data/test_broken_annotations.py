"""Annotation files that contradict themselves or their pictures are refused in a sentence."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from annotation_files import (
    HEIGHT,
    TRIANGLE,
    WIDTH,
    clips,
    pictures,
    read_clips,
    read_pictures,
    write,
)
from hypothesis import HealthCheck, given, settings, strategies as st

from mobileinst_deploy.core.errors import DatasetError, MediaError
from mobileinst_deploy.data.annotated import AnnotatedSet


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
    with pytest.raises(DatasetError, match=r"lacks 1 picture of 2 .* first is b\.png"):
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
