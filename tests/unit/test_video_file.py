"""Video files: upright, in colour, with their own times; what is damaged is told."""

from __future__ import annotations

import gc
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from corner_pictures import corners, quadrants
from written_clips import write_clip, write_tone

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.media import picture_file
from mobileinst_deploy.media.clip import Picture
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.media.video_file import VideoFile


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into an mp4 file's track header, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def test_a_clip_comes_frame_by_frame_in_colour(tmp_path):
    clip = open_clip(str(write_clip(tmp_path / "a.mp4", [quadrants(48, 64)] * 5)))
    pictures = list(clip)
    assert clip.expected == len(pictures) == 5
    assert clip.rate == 25
    assert [p.pts * clip.time_base for p in pictures] == [Fraction(i, 25) for i in range(5)]
    assert pictures[0].pixels.shape == (48, 64, 3)
    np.testing.assert_allclose(pictures[0].pixels[6, 6], (220, 30, 30), atol=12)


def test_a_clip_can_be_read_twice(tmp_path):
    clip = open_clip(str(write_clip(tmp_path / "a.mp4", [quadrants(48, 64)] * 3)))
    assert len(list(clip)) == len(list(clip)) == 3


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((1, 0, 0, 1), ["red", "green", "blue", "white"]),
        ((0, 1, -1, 0), ["blue", "red", "white", "green"]),
        ((-1, 0, 0, -1), ["white", "blue", "green", "red"]),
        ((0, -1, 1, 0), ["green", "white", "red", "blue"]),
        ((-1, 0, 0, 1), ["green", "red", "white", "blue"]),
        ((1, 0, 0, -1), ["blue", "white", "red", "green"]),
    ],
    ids=["none", "90", "180", "270", "mirrored", "upside down"],
)
def test_rotation_and_mirroring_in_the_metadata_are_applied(tmp_path, matrix, seen):
    path = turn(write_clip(tmp_path / "a.mp4", [quadrants(48, 64)]), *matrix)
    (picture,) = open_clip(str(path))
    assert corners(picture.pixels) == seen
    assert picture.pixels.shape[:2] == ((48, 64) if matrix[0] else (64, 48))
    assert picture.pixels.flags.c_contiguous


def test_time_stamps_of_a_variable_frame_rate_are_kept(tmp_path):
    pts = [0, 40, 50, 400, 1000]
    path = write_clip(
        tmp_path / "a.mp4", [quadrants(48, 64)] * 5, pts=pts, time_base=Fraction(1, 1000)
    )
    clip = open_clip(str(path))
    assert [round(p.pts * clip.time_base * 1000) for p in clip] == pts


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("grey.mkv", "ffv1", "gray"),
        ("alpha.mov", "png", "rgba"),
        ("deep.mkv", "ffv1", "yuv420p10le"),
        ("odd.mkv", "ffv1", "yuv444p"),
        ("motion.avi", "mjpeg", "yuvj420p"),
        ("old.avi", "mpeg4", "yuv420p"),
    ],
)
def test_any_pixel_format_becomes_8_bit_rgb(tmp_path, name, codec, pixel_format):
    size = (47, 63) if name.startswith("odd") else (48, 64)
    path = tmp_path / name
    write_clip(path, [quadrants(*size)] * 3, codec=codec, pixel_format=pixel_format)
    pictures = list(open_clip(str(path)))
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.pixels.shape == (*size, 3)
        assert picture.pixels.dtype == np.uint8
    if name.startswith("grey"):
        assert (np.ptp(pictures[0].pixels.astype(int), axis=2) <= 2).all()
    else:
        assert corners(pictures[0].pixels) == ["red", "green", "blue", "white"]


def test_one_frame_is_a_clip(tmp_path):
    assert len(list(open_clip(str(write_clip(tmp_path / "a.mp4", [quadrants(48, 64)]))))) == 1


def test_8k_is_a_size_like_any_other(tmp_path):
    path = write_clip(
        tmp_path / "a.avi", [quadrants(4320, 7680)], codec="mjpeg", pixel_format="yuvj420p"
    )
    (picture,) = open_clip(str(path))
    assert picture.pixels.shape == (4320, 7680, 3)


def test_a_stream_without_time_stamps_gets_even_ones(tmp_path):
    path = write_clip(tmp_path / "a.h264", [quadrants(48, 64)] * 4)
    clip = open_clip(str(path), Fraction(30))
    assert clip.rate == 30
    times = [p.pts for p in clip]
    assert len(times) == 4
    assert len(set(np.diff(times))) == 1
    assert times[1] > times[0]


def test_a_raw_streams_rate_is_asked_for_and_a_films_is_not(tmp_path):
    raw = write_clip(tmp_path / "a.h264", [quadrants(48, 64)] * 4)
    with pytest.raises(MediaError, match="does not say how fast") as caught:
        open_clip(str(raw))
    assert "--fps" in caught.value.next_step
    film = write_clip(tmp_path / "a.mp4", [quadrants(48, 64)] * 4)
    with pytest.raises(MediaError, match="says itself how fast"):
        open_clip(str(film), Fraction(30))


@pytest.mark.parametrize("start", [1.4, 26.5 * 3600])
def test_a_clip_that_begins_late_on_its_clock_begins_at_once(tmp_path, start):
    late = [round(start * 90_000) + 3600 * n for n in range(4)]
    path = write_clip(
        tmp_path / "a.ts", [quadrants(48, 64)] * 4, pts=late, time_base=Fraction(1, 90_000)
    )
    clip = open_clip(str(path))
    times = [float(p.pts * clip.time_base) for p in clip]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12], abs=0.005)


@pytest.mark.parametrize(
    ("name", "said", "next_step"),
    [
        ("https://example.org/a.mp4", "is a URL", "Download"),
        ("rtsp://10.0.0.1/live", "is a URL", "Download"),
        ("frames/img_%03d.png", "not taken for patterns", "the folder"),
        ("frames/*.jpg", "not taken for patterns", "the folder"),
    ],
)
def test_what_other_programs_would_open_gets_the_right_hint(name, said, next_step):
    with pytest.raises(MediaError, match=said) as caught:
        open_clip(name)
    assert next_step in caught.value.next_step


def test_a_film_of_too_many_pixels_is_refused_unread(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", [quadrants(48, 64)] * 2)
    monkeypatch.setattr(picture_file, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(MediaError, match="48x64 pixels; the most are"):
        open_clip(str(path))


@pytest.mark.parametrize(
    "content", [b"", b"not a video at all" * 50, b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n"]
)
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.mp4"):
        list(open_clip(str(path)))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(MediaError, match="cannot be read: No such file"):
        open_clip(str(tmp_path / "nothing.mp4"))


def test_a_file_with_sound_only_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write_tone(path)
    with pytest.raises(MediaError, match="no video"):
        open_clip(str(path))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory figures")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [quadrants(240, 320)] * 150)
    resident = []
    gc.disable()  # nothing may wait for the collector
    try:
        for _ in open_clip(str(path)):
            status = Path("/proc/self/status").read_text()
            resident.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    finally:
        gc.enable()
    # A frame is 0.22 MiB as RGB and half that as it is decoded.
    assert resident[-1] - resident[20] < 5


class TestDamage:
    def pictures(self) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        return [random.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(40)]

    def test_a_clip_cut_before_its_index_is_refused(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", self.pictures())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(MediaError, match=r"a\.mp4 cannot be read"):
            open_clip(str(path))

    def test_a_clip_cut_behind_its_index_gives_what_is_there_and_then_says_so(self, tmp_path):
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.options = {"preset": "ultrafast"}
            for picture in self.pictures():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        seen: list[Picture] = []
        with pytest.raises(MediaError, match="damaged or cut short"):
            seen.extend(open_clip(str(path)))
        assert 5 < len(seen) < 40

    def test_a_bad_packet_does_not_end_a_clip_but_is_told(self, tmp_path):
        path = write_clip(
            tmp_path / "a.mov", self.pictures()[:10], codec="png", pixel_format="rgb24"
        )
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 40] = bytes(40)
        path.write_bytes(data)
        seen: list[Picture] = []
        with pytest.raises(MediaError, match="damaged or cut short"):
            seen.extend(VideoFile(path))
        assert len(seen) >= 8
