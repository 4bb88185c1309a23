"""Animated pictures: a clip where a clip is asked for, a sentence where one picture is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.media.animation import Animation
from mobileinst_deploy.media.pictures import read_picture
from mobileinst_deploy.media.video import open_clip

SHADES = (20, 90, 200)


def write(path: Path, shades: tuple[int, ...] = SHADES, **options: object) -> Path:
    """A file of grey pictures; the right half stays, so that writers store pictures in part."""
    pictures = []
    for shade in shades:
        pixels = np.full((24, 32, 3), 128, np.uint8)
        pixels[:, :16] = shade
        pictures.append(Image.fromarray(pixels))
    # Without loss, or colours were near ones only.
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    given = {"duration": [40, 100, 60][: len(shades)], **lossless, **options}
    pictures[0].save(path, save_all=len(shades) > 1, append_images=pictures[1:], **given)
    return path


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_an_animation_is_a_clip_of_its_pictures(tmp_path, suffix):
    clip = open_clip(str(write(tmp_path / f"a{suffix}")))
    assert not clip.still
    pictures = list(clip)
    assert [int(p.pixels[0, 0, 0]) for p in pictures] == list(SHADES)
    assert {int(p.pixels[0, 31, 0]) for p in pictures} == {128}, "what stays is there, too"
    times = [p.pts * clip.time_base for p in pictures]
    assert times == [Fraction(0), Fraction(40, 1000), Fraction(140, 1000)]
    assert [int(p.pixels[0, 0, 0]) for p in clip] == list(SHADES), "and again"


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_one_picture_of_such_a_format_is_still(tmp_path, suffix):
    clip = open_clip(str(write(tmp_path / f"a{suffix}", SHADES[:1])))
    assert clip.still
    assert len(list(clip)) == 1


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_where_one_picture_is_asked_for_an_animation_is_refused(tmp_path, suffix):
    with pytest.raises(MediaError, match=r"holds 3 pictures, and one is wanted") as error:
        read_picture(write(tmp_path / f"a{suffix}"))
    assert "run" in error.value.next_step


def test_in_a_folder_of_pictures_an_animation_is_refused(tmp_path):
    write(tmp_path / "a.png", SHADES[:1])
    write(tmp_path / "b.webp")
    with pytest.raises(MediaError, match=r"b\.webp holds 3 pictures"):
        list(open_clip(str(tmp_path)))


def test_pages_and_a_phones_second_picture_are_no_animation(tmp_path):
    for name, kind in (("a.tif", "TIFF"), ("a.jpg", "MPO")):
        pictures = [Image.new("RGB", (32, 24), (9, 9, 9)) for _ in range(2)]
        pictures[0].save(tmp_path / name, kind, save_all=True, append_images=pictures[1:])
        assert read_picture(tmp_path / name).shape == (24, 32, 3)
        assert open_clip(str(tmp_path / name)).still


def test_without_times_it_goes_as_a_folder_does(tmp_path):
    clip = open_clip(str(write(tmp_path / "a.png", duration=0)))
    assert [p.pts for p in clip] == [0, 40, 80]
    assert clip.rate == 25


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_one_that_is_cut_short_is_told_at_its_end_or_before(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MediaError, match=rf"a{suffix} "):
        list(open_clip(str(path)))


def test_a_still_picture_is_no_animation(tmp_path):
    with pytest.raises(MediaError, match="is no animation"):
        Animation(write(tmp_path / "a.png", SHADES[:1]))
