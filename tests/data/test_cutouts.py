"""Cut-out clips: the same for the same seed, masks where the instances are, splits apart."""

import cv2
import numpy as np
import pytest

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.cutouts import CutoutClip, Cutouts

SIZE = (64, 128)


def write_photographs(folder, side=48, colours=((255, 0, 0), (0, 255, 0))):
    """Two grey pictures, each with a disc of its own colour, class and mask."""
    images, annotations = [], []
    for i, colour in enumerate(colours, start=1):
        picture = np.full((96, 128, 3), 128, np.uint8)
        mask = np.zeros((96, 128), np.uint8)
        cv2.circle(mask, (64, 48), side // 2, 1, -1)
        picture[mask > 0] = colour
        cv2.imwrite(str(folder / f"{i}.png"), picture[..., ::-1])
        images.append({"id": i, "file_name": f"{i}.png", "height": 96, "width": 128})
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": i,
                "segmentation": encode(mask > 0),
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
        )
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "all.json", document)
    return AnnotatedSet(folder, folder / "all.json")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


def test_a_frame_follows_from_the_seed_alone(pictures):
    clip, again = (CutoutClip(pictures, (0, 3), 12, SIZE) for _ in range(2))
    frames = list(clip)
    for t in (11, 0, 5):
        assert all(np.array_equal(a, b) for a, b in zip(frames[t], again.frame(t), strict=True))
    other = CutoutClip(pictures, (0, 4), 12, SIZE)
    assert not np.array_equal(frames[0].image, other.frame(0).image)


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_lies_on_its_instance(pictures, seed):
    for frame in list(CutoutClip(pictures, seed, 30, SIZE))[::10]:
        assert frame.image.shape == (*SIZE, 3)
        assert frame.image.dtype == np.uint8
        assert frame.masks.sum(0).max(initial=0) <= 1
        for mask, label in zip(frame.masks, frame.labels, strict=True):
            inner = cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
            if inner.any():
                colour = frame.image[inner].mean(0)
                assert colour[label] > colour[1 - label] + 40


def test_an_instance_keeps_its_number_and_class(pictures):
    classes = {}
    for frame in CutoutClip(pictures, 1, 40, SIZE):
        for track, label in zip(frame.track_ids.tolist(), frame.labels.tolist(), strict=True):
            assert classes.setdefault(track, label) == label


def test_something_moves_and_something_leaves_or_hides(pictures):
    counts = [
        {len(frame.labels) for frame in CutoutClip(pictures, seed, 60, SIZE)} for seed in range(8)
    ]
    assert any(len(c) > 1 for c in counts)


def test_splits_and_first_clips_differ(pictures):
    a = Cutouts(pictures, "train", 0, 5, 4, SIZE)
    b = Cutouts(pictures, "val", 0, 5, 4, SIZE)
    c = Cutouts(pictures, "train", 2, 5, 4, SIZE)
    assert not np.array_equal(a.clip(0).frame(0).image, b.clip(0).frame(0).image)
    assert np.array_equal(a.clip(2).frame(0).image, c.clip(0).frame(0).image)
    with pytest.raises(IndexError):
        a.clip(0).frame(4)


def test_pictures_of_tiny_instances_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="900 pixels"):
        CutoutClip(write_photographs(tmp_path, side=8), 0, 4, SIZE)
