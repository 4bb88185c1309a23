"""Running a clip: what is written, that it is true, and that nothing is lost when it goes wrong."""

from __future__ import annotations

import csv
import json
import resource
import threading
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import CONFIG, ColourRunner, bundle, patches
from written_clips import write_clip

from mobileinst_deploy.core.errors import DeviceError, MediaError, MobileInstError, OutputError
from mobileinst_deploy.core.masks import decode
from mobileinst_deploy.core.schedule import Every
from mobileinst_deploy.core.tracker import TrackSettings
from mobileinst_deploy.media import letterbox
from mobileinst_deploy.media.clip import Picture
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.media.video_file import VideoFile
from mobileinst_deploy.workflows import run as run_module
from mobileinst_deploy.workflows.run import run_clip
from mobileinst_deploy.workflows.stage_clock import STAGES

HEIGHT, WIDTH = 96, 160


def scene(number: int) -> np.ndarray:
    """Red moves right, green stays, blue is there from the third to the sixth picture."""
    # A cell of the model's features is 12 pixels here.
    where = {"red": (12, 12 + 12 * number), "green": (60, 108)}
    if 2 <= number <= 5:
        where["blue"] = (60, 24)
    return patches(HEIGHT, WIDTH, **where)


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.mp4", [scene(i) for i in range(9)])


def run(source, folder, clip_length=1, runner=None, **settings):
    clip = open_clip(str(source)) if isinstance(source, (str, Path)) else source
    return run_clip(
        bundle(),
        runner or ColourRunner(),
        clip,
        folder,
        Every(clip_length),
        TrackSettings(**settings),
    )


def test_pictures_are_prepared_while_the_network_works(clip, tmp_path, monkeypatch):
    threads = []

    def noted(*given):
        threads.append(threading.current_thread())
        return letterbox.prepare(*given)

    monkeypatch.setattr(run_module, "prepare", noted)
    report = run(clip, tmp_path / "out")
    assert len(threads) == report.frames == 9
    assert threading.current_thread() not in threads
    assert report.seconds["prepare"] == 0, "`read` is the wait for a picture that is prepared"


def test_a_picture_that_cannot_be_prepared_ends_a_run_after_those_before(tmp_path):
    class Odd(VideoFile):
        def __iter__(self):
            for number, picture in enumerate(super().__iter__()):
                yield Picture(picture.pixels.astype(np.uint8 if number < 4 else np.uint16), number)

    odd = Odd(write_clip(tmp_path / "clip.mp4", [scene(i) for i in range(9)]))
    with pytest.raises(MediaError, match="is not 8-bit RGB") as caught:
        run(odd, tmp_path / "out")
    assert "4 frames are in" in caught.value.next_step
    assert json.loads((tmp_path / "out" / "run.json").read_text())["frames"] == 4


def pictures(path: Path) -> list[np.ndarray]:
    return [p.pixels for p in open_clip(str(path))]


def tracks(folder: Path) -> dict[str, dict]:
    """tracks.json by class name."""
    found = json.loads((folder / "tracks.json").read_text())
    return {CONFIG.classes[t["category_id"] - 1]: t for t in found}


def test_tracks_are_in_youtube_vis_form_at_the_clips_own_size(clip, tmp_path):
    run(clip, tmp_path / "o")
    found = tracks(tmp_path / "o")
    assert sorted(found) == ["blue", "green", "red"]
    for track in found.values():
        assert track["video_id"] == 1
        assert 0.3 <= track["score"] <= 1
        assert len(track["segmentations"]) == 9
    for number, rle in enumerate(found["red"]["segmentations"]):
        mask = decode(rle)
        assert mask.shape == (HEIGHT, WIDTH)
        want = (scene(number) == (255, 0, 0)).all(axis=2)
        assert (mask & want).sum() > 0.5 * (mask | want).sum()
        centres = [np.argwhere(m).mean(axis=0) for m in (mask, want)]
        np.testing.assert_allclose(*centres, atol=1)
    seen = [rle is not None for rle in found["blue"]["segmentations"]]
    assert seen == [2 <= number <= 5 for number in range(9)]


def test_the_overlay_has_every_frame_and_tells_keyframes_apart(clip, tmp_path):
    report = run(clip, tmp_path / "o", 3)
    drawn = pictures(tmp_path / "o" / "overlay.mp4")
    assert len(drawn) == 9
    assert drawn[0].shape == (HEIGHT, WIDTH, 3)
    # The red of the border is in one channel, the green in another.
    green = [int(p[0, :, 1].mean()) > int(p[0, :, 0].mean()) for p in drawn]
    assert green == [True, False, False] * 3
    assert report.keyframes == 3


def test_timings_have_a_row_per_frame(clip, tmp_path):
    report = run(clip, tmp_path / "o", 2)
    with (tmp_path / "o" / "timings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["since_keyframe"]) for r in rows] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert [float(r["seconds"]) for r in rows] == pytest.approx([i / 25 for i in range(9)])
    assert [int(r["instances"]) for r in rows][:3] == [2, 2, 3]
    for stage in STAGES:
        total = sum(float(r[f"{stage}_ms"]) for r in rows) / 1000
        assert report.seconds[stage] == pytest.approx(total, abs=1e-4)
    assert sum(report.seconds.values()) <= report.wall_seconds


def test_the_report_says_what_was_run(clip, tmp_path):
    report = run(clip, tmp_path / "o", 3, score=0.4)
    written = json.loads((tmp_path / "o" / "run.json").read_text())
    assert written["bundle_sha256"] == "f" * 64
    assert written["frames"] == written["expected"] == 9
    assert written["stopped"] is None
    assert written["schedule"] == "3"
    assert written["settings"]["score"] == 0.4
    assert written["tracks"] == {"blue": 1, "green": 1, "red": 1}
    assert written["frames_per_second"] == pytest.approx(report.frames / report.wall_seconds)
    for path in written["files"].values():
        assert Path(path).exists()


def test_the_time_of_an_emulator_is_never_a_speed(clip, tmp_path):
    report = run(clip, tmp_path / "o", runner=ColourRunner(emulated=True))
    assert report.emulated
    assert report.frames_per_second is None
    assert set(report.seconds) == {"read", "masks", "draw", "write"}
    with (tmp_path / "o" / "timings.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["prepare_ms"] == row["graphs_ms"] == row["track_ms"] == ""


def test_a_picture_gives_a_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), scene(3)[..., ::-1])
    report = run(tmp_path / "a.png", tmp_path / "o")
    assert report.frames == 1
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "overlay.png",
        "tracks.json",
        "timings.csv",
        "run.json",
    }
    assert (pictures(tmp_path / "o" / "overlay.png")[0][0] == (64, 200, 88)).all()


def test_a_folder_of_pictures_gives_a_film(tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), scene(number)[..., ::-1])
    assert run(tmp_path / "frames", tmp_path / "o").frames == 4
    assert len(pictures(tmp_path / "o" / "overlay.mp4")) == 4


def test_a_clip_without_instances_is_no_failure(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [patches(HEIGHT, WIDTH)] * 3)
    assert run(path, tmp_path / "o").tracks == {}
    assert json.loads((tmp_path / "o" / "tracks.json").read_text()) == []
    assert len(pictures(tmp_path / "o" / "overlay.mp4")) == 3


def test_an_older_result_is_replaced(clip, tmp_path):
    run(clip, tmp_path / "o")
    before = (tmp_path / "o" / "tracks.json").read_bytes()
    run(clip, tmp_path / "o", score=0.99)
    assert (tmp_path / "o" / "tracks.json").read_bytes() != before
    assert len(list((tmp_path / "o").iterdir())) == 4


class Broken(VideoFile):
    """A clip that ends after some frames with an error."""

    def __init__(self, path: Path, frames: int, error: BaseException) -> None:
        super().__init__(path)
        self.frames, self.error = frames, error

    def __iter__(self):
        yield from islice(super().__iter__(), self.frames)
        raise self.error


class TestWhenItGoesWrong:
    def test_a_clip_that_breaks_off_is_kept_as_far_as_it_went(self, clip, tmp_path):
        broken = Broken(clip, 5, MediaError("clip.mp4 is cut short", "Repair the clip"))
        with pytest.raises(MediaError, match=r"cut short.*the results of 5 frames are in .*o\."):
            run(broken, tmp_path / "o")
        self.check(tmp_path / "o", 5, "clip.mp4 is cut short")

    def test_ctrl_c_keeps_what_is_there(self, clip, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            run(Broken(clip, 4, KeyboardInterrupt()), tmp_path / "o")
        self.check(tmp_path / "o", 4, "interrupted")

    def test_a_device_that_dies_keeps_what_is_there(self, clip, tmp_path):
        class Dying(ColourRunner):
            def frame(self, image):
                if self.frames == 3:
                    raise DeviceError("the phone is gone", "Connect it again")
                return super().frame(image)

        with pytest.raises(DeviceError, match="the results of 3 frames are in"):
            run(clip, tmp_path / "o", runner=Dying())
        self.check(tmp_path / "o", 3, "the phone is gone")

    def check(self, folder: Path, frames: int, stopped: str) -> None:
        assert len(pictures(folder / "overlay.mp4")) == frames
        assert len(tracks(folder)["green"]["segmentations"]) == frames
        report = json.loads((folder / "run.json").read_text())
        assert report["frames"] == frames
        assert report["stopped"] == stopped
        assert len((folder / "timings.csv").read_text().splitlines()) == 1 + frames
        assert len(list(folder.iterdir())) == 4

    @pytest.mark.parametrize(
        "error", [MediaError("no picture at all", "Give another"), KeyboardInterrupt()]
    )
    def test_before_the_first_picture_nothing_is_written(self, clip, tmp_path, error):
        with pytest.raises((MobileInstError, KeyboardInterrupt)) as raised:
            run(Broken(clip, 0, error), tmp_path / "o")
        assert "frames before" not in str(raised.value)
        assert not (tmp_path / "o").exists()

    def test_no_space_for_the_overlay_still_leaves_the_tracks(self, tmp_path):
        random = np.random.default_rng(0)

        class Noise:
            name, rate, time_base = "noise", Fraction(25), Fraction(1, 25)
            expected = audio = None
            still = False

            def __iter__(self):
                for number in range(200):
                    picture = random.integers(0, 90, (240, 320, 3)).astype(np.uint8)
                    picture[64:128, 64:128] = 255, 0, 0
                    yield Picture(picture, number)

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        try:
            with pytest.raises(OutputError, match=r"no space left to write .*overlay\.mp4"):
                run(Noise(), tmp_path / "o")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
            "run.json",
            "timings.csv",
            "tracks.json",
        ]
        report = json.loads((tmp_path / "o" / "run.json").read_text())
        assert "overlay" not in report["files"]
        assert len(tracks(tmp_path / "o")["red"]["segmentations"]) >= report["frames"]

    def test_a_file_in_the_place_of_the_folder_is_said(self, clip, tmp_path):
        (tmp_path / "o").write_text("mine")
        with pytest.raises(OutputError, match="cannot be written"):
            run(clip, tmp_path / "o")
        assert (tmp_path / "o").read_text() == "mine"
