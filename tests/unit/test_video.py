"""Clips that are no video file: folders of pictures, one picture, a camera."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from corner_pictures import corners, quadrants

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.media.clip import Picture
from mobileinst_deploy.media.video import Camera, open_clip


class TestPictures:
    def write(self, folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
        folder.mkdir(exist_ok=True)
        for name, size in sizes.items():
            cv2.imwrite(str(folder / name), quadrants(*size)[..., ::-1])
        return folder

    def test_a_folder_is_a_clip_in_natural_order(self, tmp_path):
        folder = self.write(tmp_path / "f", {})
        for number in (10, 9, 1, 2):
            cv2.imwrite(str(folder / f"frame_{number}.png"), np.full((8, 8, 3), number, np.uint8))
        (folder / "notes.txt").write_text("no picture")
        clip = open_clip(str(folder))
        assert clip.expected == 4
        assert [int(p.pixels[0, 0, 0]) for p in clip] == [1, 2, 9, 10]
        assert [p.pts * clip.time_base for p in clip] == [Fraction(i, 25) for i in range(4)]

    def test_one_picture_is_a_still_clip(self, tmp_path):
        folder = self.write(tmp_path / "f", {"a.jpg": (48, 64)})
        clip = open_clip(str(folder / "a.jpg"))
        assert clip.still
        (picture,) = clip
        assert corners(picture.pixels) == ["red", "green", "blue", "white"]

    def test_a_folder_without_pictures_is_refused(self, tmp_path):
        with pytest.raises(MediaError, match="holds no picture"):
            open_clip(str(tmp_path))

    def test_an_unreadable_picture_is_named(self, tmp_path):
        folder = self.write(tmp_path / "f", {"1.png": (8, 8), "3.png": (8, 8)})
        (folder / "2.png").write_bytes(b"no png")
        pictures = iter(open_clip(str(folder)))
        next(pictures)
        with pytest.raises(MediaError, match=r"2\.png is not a readable picture"):
            next(pictures)

    def test_a_picture_of_another_size_is_named(self, tmp_path):
        folder = self.write(tmp_path / "f", {"1.png": (8, 8), "2.png": (8, 10)})
        with pytest.raises(MediaError, match=r"2\.png has 8x10 pixels \(height x width\), and the"):
            list(open_clip(str(folder)))


class TestCamera:
    """With a stand-in: no machine of the tests has a camera."""

    def test_a_number_is_a_camera_unless_a_file_has_that_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert isinstance(open_clip("0"), Camera)
        Path("0").mkdir()
        with pytest.raises(MediaError, match="holds no picture"):
            open_clip("0")

    def test_pictures_come_until_it_stops(self, monkeypatch):
        class Capture:
            left = 3

            def __init__(self, index):
                assert index == 7

            def isOpened(self):  # noqa: N802
                return True

            def read(self):
                self.left -= 1
                return self.left >= 0, quadrants(48, 64)[..., ::-1]

            def release(self):
                pass

        monkeypatch.setattr(cv2, "VideoCapture", Capture)
        pictures: list[Picture] = []
        with pytest.raises(MediaError, match="camera 7 stopped"):
            pictures.extend(open_clip("7"))
        assert len(pictures) == 3
        assert corners(pictures[0].pixels) == ["red", "green", "blue", "white"]
        assert pictures[0].pts < pictures[1].pts < pictures[2].pts

    def test_a_camera_that_is_not_there_is_refused(self, monkeypatch):
        class Nothing:
            def __init__(self, index):
                pass

            def isOpened(self):  # noqa: N802
                return False

            def release(self):
                pass

        monkeypatch.setattr(cv2, "VideoCapture", Nothing)
        with pytest.raises(MediaError, match="camera 0 cannot be opened"):
            next(iter(open_clip("0")))
