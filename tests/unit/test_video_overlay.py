"""Overlays out: drawn so that one sees who is who, written so that one can play them."""

from __future__ import annotations

import resource
from fractions import Fraction
from itertools import combinations, islice
from pathlib import Path

import av
import numpy as np
import pytest
from corner_pictures import corners, quadrants
from written_clips import write_clip, write_tone

from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.media import overlay_file
from mobileinst_deploy.media.clip import Clip
from mobileinst_deploy.media.overlay import (
    KEYFRAME_COLOUR,
    REUSE_COLOUR,
    Shape,
    colour_of,
    draw_overlay,
)
from mobileinst_deploy.media.overlay_file import OverlayFile, write_picture
from mobileinst_deploy.media.pictures import read_picture
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.media.video_file import VideoFile


def disc(height: int, width: int, y: float = 0.5, x: float = 0.5, r: float = 0.25) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows - y * height, columns - x * width) < r * min(height, width)


class TestDrawing:
    @pytest.mark.parametrize(
        ("keyframe", "colour"), [(True, KEYFRAME_COLOUR), (False, REUSE_COLOUR)]
    )
    def test_the_border_tells_keyframes_from_reuse_frames(self, keyframe, colour):
        drawn = draw_overlay(np.zeros((90, 160, 3), np.uint8), [], keyframe)
        for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
            assert (edge == colour).all()
        assert (drawn[4:-4, 4:-4] == 0).all()

    def test_an_instance_is_tinted_in_its_colour_and_nothing_else_is(self):
        picture = np.full((240, 320, 3), 100, np.uint8)
        mask = disc(240, 320)
        drawn = draw_overlay(picture, [Shape(3, "", mask)], keyframe=True).astype(float)
        np.testing.assert_allclose(
            drawn[120, 160], 0.55 * 100 + 0.45 * np.array(colour_of(3)), atol=1
        )
        assert (drawn[-20:-6, 6:-6] == 100).all()
        assert (picture == 100).all()

    def test_a_colour_stays_with_its_identity(self):
        assert colour_of(5) == colour_of(5)

    def test_colours_of_a_clips_instances_can_be_told_apart(self):
        colours = [np.array(colour_of(i)) for i in range(1, 13)]
        assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 40

    @pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16), (60, 400), (719, 1281)])
    def test_every_size_of_picture_can_be_drawn(self, size):
        shapes = [Shape(i, f"a rather long name 0.9{i}  #{i}", disc(*size)) for i in range(1, 6)]
        assert draw_overlay(np.zeros((*size, 3), np.uint8), shapes, keyframe=True).shape == (
            *size,
            3,
        )

    def test_an_empty_mask_draws_nothing(self):
        picture = np.zeros((90, 160, 3), np.uint8)
        empty = Shape(1, "dog", np.zeros((90, 160), bool))
        np.testing.assert_array_equal(
            draw_overlay(picture, [empty], True), draw_overlay(picture, [], True)
        )

    def test_labels_lie_on_no_other_label(self):
        picture = np.zeros((360, 640, 3), np.uint8)
        one = draw_overlay(picture, [Shape(1, "dog 0.90  #1", disc(360, 640))], True)
        two = draw_overlay(
            picture,
            [Shape(2, "dog 0.80  #2", disc(360, 640)), Shape(1, "dog 0.90  #1", disc(360, 640))],
            True,
        )
        plate = (one == colour_of(1)).all(axis=2)
        plate[88:] = False  # the contours begin there
        assert plate.sum() > 300
        np.testing.assert_array_equal(two[plate], one[plate])
        assert (two == colour_of(2)).all(axis=2).sum() > 300


def read_back(path: Path) -> list[np.ndarray]:
    return [p.pixels for p in open_clip(str(path))]


def copy(source: Path | Clip, target: Path) -> OverlayFile:
    clip = open_clip(str(source)) if isinstance(source, Path) else source
    return copy_by(OverlayFile(target, clip), clip)


def copy_by(overlay: OverlayFile, clip: Clip) -> OverlayFile:
    with overlay:
        for picture in clip:
            overlay.write(picture.pixels, picture.pts)
    return overlay


class TestWriting:
    def test_size_rate_colour_and_count_are_those_of_the_clip(self, tmp_path):
        source = write_clip(tmp_path / "a.mp4", [quadrants(48, 64)] * 12)
        assert copy(source, tmp_path / "o.mp4").notes == []
        with av.open(str(tmp_path / "o.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height, stream.frames) == (64, 48, 12)
            assert stream.average_rate == 25
            assert stream.codec_context.name == "h264"
        pictures = read_back(tmp_path / "o.mp4")
        assert corners(pictures[11]) == ["red", "green", "blue", "white"]
        np.testing.assert_allclose(pictures[0][6, 6], (220, 30, 30), atol=15)

    def test_a_variable_frame_rate_is_kept(self, tmp_path):
        pts = [0, 40, 50, 400, 1000]
        source = write_clip(
            tmp_path / "a.mp4", [quadrants(48, 64)] * 5, pts=pts, time_base=Fraction(1, 1000)
        )
        copy(source, tmp_path / "o.mp4")
        clip = open_clip(str(tmp_path / "o.mp4"))
        assert [round(p.pts * clip.time_base * 1000) for p in clip] == pts

    def test_an_odd_size_is_padded_and_said(self, tmp_path):
        source = write_clip(
            tmp_path / "a.mkv", [quadrants(47, 63)] * 3, codec="ffv1", pixel_format="yuv444p"
        )
        overlay = copy(source, tmp_path / "o.mp4")
        assert overlay.notes == [
            "padded from 47x63 to 48x64 (height x width), since H.264 wants even sides",
        ]
        assert read_back(tmp_path / "o.mp4")[0].shape == (48, 64, 3)

    def test_audio_is_copied_untouched(self, tmp_path):
        source = write_tone(tmp_path / "a.mp4", [quadrants(48, 64)] * 10)
        copy(source, tmp_path / "o.mp4")

        def packets(path: Path) -> list[bytes]:
            with av.open(str(path)) as container:
                return [bytes(p) for p in container.demux(audio=0) if p.size]

        assert packets(tmp_path / "o.mp4") == packets(source)
        assert len(packets(source)) > 10

    def test_audio_of_an_unknown_codec_is_left_out_and_said(self, tmp_path):
        film, strange = tmp_path / "film.mkv", tmp_path / "strange.mkv"
        write_tone(film, [quadrants(48, 64)] * 3, codec="pcm_s16le")
        whole = film.read_bytes()
        assert whole.count(b"A_PCM/INT/LIT") == 1
        strange.write_bytes(whole.replace(b"A_PCM/INT/LIT", b"A_XYZ/NOT/ONE"))
        overlay = copy(strange, tmp_path / "overlay.mp4")
        assert overlay.notes == ["without audio, which mp4 cannot hold as it is"]

    def test_audio_that_mp4_cannot_hold_is_left_out_and_said(self, tmp_path):
        source = write_tone(tmp_path / "a.mkv", [quadrants(48, 64)] * 10, codec="pcm_s16le")
        overlay = copy(source, tmp_path / "o.mp4")
        assert overlay.notes == ["without audio, which mp4 cannot hold as it is"]
        assert len(read_back(tmp_path / "o.mp4")) == 10

    def test_without_an_h264_encoder_it_is_mpeg4_and_said(self, tmp_path, monkeypatch):
        monkeypatch.setattr(overlay_file, "_ENCODERS", ("no_such_encoder", "mpeg4"))
        source = write_clip(
            tmp_path / "a.mp4", [quadrants(48, 64)] * 4, time_base=Fraction(1, 90000),
            pts=[0, 3000, 9000, 18000],
        )  # fmt: skip
        overlay = copy(source, tmp_path / "o.mp4")
        assert len(overlay.notes) == 1
        assert "MPEG-4" in overlay.notes[0]
        clip = open_clip(str(tmp_path / "o.mp4"))
        times = [float(p.pts * clip.time_base) for p in clip]
        assert times == pytest.approx([0, 1 / 30, 0.1, 0.2], abs=1e-3)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_what_was_written_before_an_interruption_plays(self, tmp_path, error):
        source = write_tone(tmp_path / "a.mp4", [quadrants(48, 64)] * 10)

        class Interrupted(VideoFile):
            def __iter__(self):
                yield from islice(super().__iter__(), 4)
                raise error

        with pytest.raises(error):
            copy(Interrupted(source), tmp_path / "o.mp4")
        assert len(read_back(tmp_path / "o.mp4")) == 4
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "o.mp4"]

    def test_a_signal_while_the_encoder_catches_up_costs_nothing(self, tmp_path):
        source = write_clip(tmp_path / "a.mp4", [quadrants(48, 64)] * 6)
        clip = open_clip(str(source))
        overlay = OverlayFile(tmp_path / "o.mp4", clip)
        wait = overlay._encoder.join

        def signalled():
            overlay._encoder.join = wait
            raise KeyboardInterrupt

        overlay._encoder.join = signalled
        with pytest.raises(KeyboardInterrupt):
            copy_by(overlay, clip)
        assert len(read_back(tmp_path / "o.mp4")) == 6
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "o.mp4"]

    def test_nothing_written_leaves_no_file(self, tmp_path):
        source = write_clip(tmp_path / "a.mp4", [quadrants(48, 64)])
        with OverlayFile(tmp_path / "o.mp4", open_clip(str(source))):
            pass
        assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]

    def test_a_full_disk_is_said_and_leaves_no_file(self, tmp_path):
        random = np.random.default_rng(0)
        noise = [random.integers(0, 256, (240, 320, 3)).astype(np.uint8) for _ in range(40)]
        source = write_clip(tmp_path / "a.mp4", noise)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(OutputError, match=r"no space left to write .*o\.mp4"):
                copy(source, tmp_path / "o.mp4")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]

    def test_a_folder_that_is_a_file_is_said(self, tmp_path):
        source = write_clip(tmp_path / "a.mp4", [quadrants(48, 64)])
        with pytest.raises(OutputError, match="cannot be written"):
            copy(source, source / "o.mp4")

    def test_a_picture_is_written_without_loss(self, tmp_path):
        write_picture(tmp_path / "o.png", quadrants(47, 63))
        np.testing.assert_array_equal(read_picture(tmp_path / "o.png"), quadrants(47, 63))
