"""References are made on real pictures: the user's, or photographs that ship in a package."""

from __future__ import annotations

import importlib.util
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.media.pictures import (
    bundled_photographs,
    read_picture,
    reference_clips,
    user_clip,
)

RED = np.full((20, 30, 3), (255, 0, 0), np.uint8)


def save(path: Path, rgb: np.ndarray) -> Path:
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def test_a_picture_is_rgb(tmp_path):
    assert np.array_equal(read_picture(save(tmp_path / "red.png", RED)), RED)


def test_grey_pictures_and_transparent_ones_become_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 4), 7, np.uint8))
    assert np.array_equal(read_picture(tmp_path / "grey.png"), np.full((4, 4, 3), 7))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((4, 4, 4), (3, 2, 1, 128), np.uint8))
    assert np.array_equal(read_picture(tmp_path / "alpha.png")[0, 0], (1, 2, 3))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"picture\.png is not a readable picture"):
        read_picture(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(MediaError, match="No such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(MediaError, match="Is a directory"):
        read_picture(tmp_path)


def test_the_photographs_ship_with_the_package():
    assert all(read_picture(path).std() > 20 for path in bundled_photographs())


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MediaError, match="photographs are missing"):
        bundled_photographs()


@pytest.mark.parametrize("size", [(64, 64), (384, 640), (640, 896), (64, 4096), (1024, 64)])
def test_reference_clips_are_pans_over_photographs(size):
    images, keyframe = reference_clips(size)
    assert (images.shape, images.dtype) == ((4, 3, *size), np.uint8)
    assert keyframe.tolist() == [0, 0, 0, 3]
    assert images.flags.c_contiguous
    assert len({image.tobytes() for image in images}) == 4, "no picture is there twice"


def test_a_clip_of_the_users_pictures_begins_with_its_keyframe(tmp_path):
    paths = [save(tmp_path / f"{i}.png", RED) for i in range(3)]
    images, keyframe = user_clip(paths, (64, 128))
    assert images.shape == (3, 3, 64, 128)
    assert keyframe.tolist() == [0, 0, 0]
    assert np.array_equal(images[0, :, 10, 10], (255, 0, 0))


def test_one_unreadable_picture_spoils_the_clip(tmp_path):
    with pytest.raises(MediaError):
        user_clip([save(tmp_path / "red.png", RED), tmp_path / "none.png"], (64, 64))


def png_header(width: int, height: int) -> bytes:
    """A picture that is all promise."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(
        ">I", zlib.crc32(chunk)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height"), [(30_000, 30_000), (40_000, 10), (9000, 8000), (2**31 - 1, 2**31 - 1)]
)
def test_a_picture_that_would_not_fit_is_refused_by_its_header(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(MediaError, match=r"bomb\.png"):
        read_picture(path)


@pytest.mark.parametrize("quality", [50, 95])
def test_damage_inside_a_jpeg_names_the_file(tmp_path, quality, capfd):
    picture = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    picture = cv2.GaussianBlur(picture, (9, 9), 3)
    whole = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert read_picture(path).shape == (160, 200, 3)
    for damaged, said in (
        (whole[: len(whole) // 2], "is cut short"),
        (whole[: len(whole) // 2] + whole[-2:], "is damaged"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(MediaError, match=rf"a\.jpg {said}"):
            read_picture(path)
    assert capfd.readouterr().err == ""


def test_what_native_code_says_of_other_things_still_reaches_stderr(tmp_path, capfd):
    os.write(2, b"before\n")
    path = tmp_path / "a.jpg"
    path.write_bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    read_picture(path)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
