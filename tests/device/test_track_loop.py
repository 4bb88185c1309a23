"""Whole clips followed on the device: the tracks are the host's, natively and on the ARM build."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import native
import numpy as np
import pytest
import tiny_export
import tiny_pair

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import ConfigError, DeviceError, MediaError
from mobileinst_deploy.core.masks import decode, iou
from mobileinst_deploy.core.schedule import Auto, Every, parse_schedule
from mobileinst_deploy.core.tracker import TrackSettings
from mobileinst_deploy.data.shapes import ShapesClip, clip_seed
from mobileinst_deploy.media.clip import Picture
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.pair.clip_gate import verify_clip
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import OUTPUT_FOLDER, Plan, plan_calls
from mobileinst_deploy.phone.result import read_tensors
from mobileinst_deploy.runtimes.device import DeviceRunner
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.phone import AdbRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner
from mobileinst_deploy.runtimes.track_loop import DeviceLoop
from mobileinst_deploy.workflows.run import run_clip

ALL = TrackSettings(score=0.0, duplicate_iou=1.0)


class NativeRunner(DeviceRunner):
    """The runner as built for this machine, in the place of a phone."""

    name, runtime, emulated, limit_seconds = "native", "onnxruntime", False, 120

    def __init__(self, bundle: ExportBundle, folder: Path, **other: Path) -> None:
        self.specs = bundle.specs
        self._graphs = {role: graph.path for role, graph in bundle.graphs.items()} | other
        self._folder = folder
        self._turn = itertools.count()
        self.starts = 0

    def outputs(self, calls: list[object]) -> list[dict[str, np.ndarray]]:
        raise AssertionError("the device does the whole loop")

    def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
        self.starts += 1
        folder = self._folder / str(next(self._turn))
        folder.mkdir(parents=True)
        done = native.start(folder, plan, graphs=self._graphs)
        tensors = read_tensors(done.result, done.folder / OUTPUT_FOLDER)
        shutil.rmtree(folder)
        return tensors


class Film:
    """A clip in memory; it may break off."""

    name, still, audio = "film", False, None
    rate, time_base = Fraction(10), Fraction(1, 10)

    def __init__(self, frames: list[np.ndarray], breaks: bool = False) -> None:
        self._frames, self._breaks = frames, breaks
        self.expected = len(frames)

    def __iter__(self) -> Iterator[Picture]:
        for pts, pixels in enumerate(self._frames):
            yield Picture(pixels, pts)
        if self._breaks:
            raise MediaError("film ends early", "Record it again")


@pytest.fixture(scope="module")
def film() -> Film:
    return Film(shapes(10))


def shapes(frames: int, size: tuple[int, int] = (96, 128)) -> list[np.ndarray]:
    return [f.image for f in ShapesClip(clip_seed("test", 1), frames, size)]


def tracks_of(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "tracks.json").read_text())


def assert_same_tracks(got: list[dict], want: list[dict], lowest: float = 1.0) -> float:
    """Identities, classes and frames are the same; gives the lowest mask IoU."""
    assert sorted((t["id"], t["category_id"]) for t in got) == sorted(
        (t["id"], t["category_id"]) for t in want
    )
    found = 1.0
    theirs = {t["id"]: t for t in want}
    for track in got:
        other = theirs[track["id"]]
        assert track["score"] == pytest.approx(other["score"], abs=1e-4)
        for a, b in zip(track["segmentations"], other["segmentations"], strict=True):
            assert (a is None) == (b is None) or lowest < 1
            if a and b:
                found = min(found, float(iou(decode(a)[None], decode(b)[None])[0, 0]))
    assert found >= lowest
    return found


class TestRun:
    @pytest.mark.parametrize("name", ["1", "3", "auto"])
    def test_a_clip_on_the_device_gives_the_hosts_tracks(
        self, tmp_path: Path, pair: ExportBundle, film: Film, name: str
    ):
        device = NativeRunner(pair, tmp_path / "device")
        got = run_clip(pair, device, film, tmp_path / "a", parse_schedule(name), ALL)
        want = run_clip(pair, CpuRunner(pair), film, tmp_path / "b", parse_schedule(name), ALL)
        assert device.starts == 1
        assert assert_same_tracks(tracks_of(tmp_path / "a"), tracks_of(tmp_path / "b")) == 1.0
        assert (got.frames, got.keyframes, got.tracks) == (want.frames, want.keyframes, want.tracks)
        assert sum(got.tracks.values()) > 0

    def test_the_devices_own_times_are_in_the_table(
        self, tmp_path: Path, pair: ExportBundle, film: Film
    ):
        runner = NativeRunner(pair, tmp_path / "device")
        report = run_clip(pair, runner, film, tmp_path / "out", Every(3), ALL)
        text = (tmp_path / "out" / "timings.csv").read_text()
        rows = list(csv.DictReader(text.splitlines()))
        assert [int(r["since_keyframe"]) for r in rows] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
        assert all(float(r["graphs_ms"]) > 0 and float(r["track_ms"]) > 0 for r in rows)
        assert report.seconds["graphs"] > 0

    def test_every_frame_is_charged_its_own_reading_and_its_share_of_the_way(
        self, tmp_path: Path, pair: ExportBundle, film: Film
    ):
        class Slow(Film):
            def __iter__(self):
                for picture in super().__iter__():
                    time.sleep(0.01)
                    yield picture

        runner = NativeRunner(pair, tmp_path / "device")
        report = run_clip(pair, runner, Slow(shapes(6)), tmp_path / "out", Every(3), ALL)
        rows = list(csv.DictReader((tmp_path / "out" / "timings.csv").read_text().splitlines()))
        assert all(10 <= float(row["read_ms"]) < 40 for row in rows)
        assert len({row["transfer_ms"] for row in rows}) == 1
        assert float(rows[0]["transfer_ms"]) > 0
        # What is in no stage is only what lies between them.
        assert sum(report.seconds.values()) > 0.8 * report.wall_seconds

    def test_a_clip_that_breaks_off_keeps_what_was_there(
        self, tmp_path: Path, pair: ExportBundle, film: Film
    ):
        runner = NativeRunner(pair, tmp_path / "device")
        broken = Film(shapes(4), breaks=True)
        with pytest.raises(MediaError, match="film ends early") as caught:
            run_clip(pair, runner, broken, tmp_path / "out", Every(3), ALL)
        assert "the results of 4 frames are in" in caught.value.next_step
        assert all(len(t["segmentations"]) == 4 for t in tracks_of(tmp_path / "out"))


class TestLoop:
    @pytest.mark.parametrize("schedule", [Every(3), Auto(4, change=1.0)], ids=["3", "auto"])
    def test_batches_do_not_show(
        self, tmp_path: Path, pair: ExportBundle, film: Film, schedule: Every | Auto
    ):
        whole = DeviceLoop(pair, NativeRunner(pair, tmp_path / "a"), schedule, ALL)
        parts = DeviceLoop(pair, NativeRunner(pair, tmp_path / "b"), schedule, ALL, batch=4)
        for one, other in zip(whole.follow(film), parts.follow(film), strict=True):
            assert one.picture is not None
            assert one.frame.since == other.frame.since
            assert one.frame.ids.tolist() == other.frame.ids.tolist()
            assert one.frame.masks == other.frame.masks
        assert {i: t.class_index for i, t in whole.tracks.items()} == {
            i: t.class_index for i, t in parts.tracks.items()
        }

    def test_a_device_that_answers_twice_is_not_believed(
        self, tmp_path: Path, pair: ExportBundle, film: Film
    ):
        class Twice(NativeRunner):
            def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
                return super().tensors(plan) * 2

        loop = DeviceLoop(pair, Twice(pair, tmp_path), Every(3), ALL)
        with pytest.raises(DeviceError, match="2 answers to one clip"):
            next(loop.follow(film))


class TestGate:
    """The sequence gate of ``verify --clip``: the device follows the clip by itself."""

    def gate(self, pair: ExportBundle, tmp_path: Path, schedule: Every | Auto, **other: Path):
        device = NativeRunner(pair, tmp_path / "device", **other)
        loop = DeviceLoop(pair, device, schedule, ALL, logits=True, batch=4)
        reference = CpuRunner(pair)

        def images() -> Iterator[np.ndarray]:
            for frame in shapes(7, pair.config.input_size):
                yield frame.transpose(2, 0, 1)[None].astype(np.float32)

        placing = PlacingRunner(device)
        check = verify_clip(
            reference,
            placing,
            images,
            schedule,
            ALL,
            pair.tolerance,
            follow=loop.track,
        )
        return check, device, placing

    @pytest.mark.parametrize("name", ["3", "auto"])
    def test_the_same_pair_passes_in_a_start_per_batch(
        self, tmp_path: Path, pair: ExportBundle, name: str
    ):
        check, device, placing = self.gate(pair, tmp_path, parse_schedule(name))
        assert check.passed, check.detail
        assert check.figures["frames"] == 7
        assert check.figures["min_mask_iou"] == 1
        assert all(d["max_abs"] < 1e-4 for d in check.figures["drift"])
        assert (device.starts, placing.calls) == (2, 0)

    def test_another_mask_head_on_the_device_is_found_and_placed(
        self, tmp_path: Path, pair: ExportBundle
    ):
        wrong = tiny_export.export(tmp_path / "wrong", mask_scale=-1.0)
        check, _, placing = self.gate(
            pair, tmp_path, Every(3), mask_head=wrong.graphs["mask_head"].path
        )
        assert not check.passed
        assert check.detail.startswith("frame 1, 1 after its keyframe")
        assert check.detail.endswith("the difference is in the mask-head graph")
        assert placing.calls > 0


class PlacingRunner:
    """Graph by graph on the device, as only a failing frame is looked at."""

    name, runtime, emulated, specs = "native", "onnxruntime", False, tiny_pair.SPECS

    def __init__(self, device: NativeRunner) -> None:
        self._device = device
        self.calls = 0

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        self.calls += len(calls)
        return self._device.tensors(Plan("outputs", plan_calls(tiny_pair.SPECS, calls)))


def test_mask_logits_that_were_not_asked_for_are_not_compared(tmp_path: Path, pair: ExportBundle):
    loop = DeviceLoop(pair, NativeRunner(pair, tmp_path), Every(3), ALL)
    with pytest.raises(ConfigError, match="was not asked for mask logits"):
        next(loop.track([np.zeros((1, 3, *pair.config.input_size), np.float32)]))


def test_trained_weights_give_the_hosts_tracks(tmp_path: Path):
    loaded = load_model("mobileinst-demo")
    if not loaded.trained:
        pytest.skip("the demo model's weights are not here")
    demo = export_model(loaded, tmp_path / "demo", simplify=False)
    runner, clip = NativeRunner(demo, tmp_path / "device"), Film(shapes(8, (192, 320)))
    run_clip(demo, runner, clip, tmp_path / "a", Every(3), TrackSettings())
    run_clip(demo, CpuRunner(demo), clip, tmp_path / "b", Every(3), TrackSettings())
    got = tracks_of(tmp_path / "a")
    assert got, "there is something to follow"
    assert assert_same_tracks(got, tracks_of(tmp_path / "b")) == 1.0


@pytest.mark.device
@pytest.mark.parametrize("name", ["3", "auto"])
def test_the_arm_build_gives_the_hosts_tracks(
    tmp_path: Path, pair: ExportBundle, real_bundle: DeviceBundle, film: Film, name: str
):
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("no qemu; run: sudo apt-get install qemu-user")
    runner = QemuRunner(pair, real_bundle, limit_seconds=120)
    report = run_clip(pair, runner, film, tmp_path / "a", parse_schedule(name), ALL)
    run_clip(pair, CpuRunner(pair), film, tmp_path / "b", parse_schedule(name), ALL)
    lowest = assert_same_tracks(tracks_of(tmp_path / "a"), tracks_of(tmp_path / "b"), 0.99)
    assert lowest >= 0.99
    assert report.emulated
    assert "graphs" not in report.seconds


@pytest.mark.device
def test_a_phone_gives_the_hosts_tracks(
    tmp_path: Path, pair: ExportBundle, real_bundle: DeviceBundle, film: Film, phone
):
    with AdbRunner(pair, real_bundle, phone.serial, limit_seconds=120) as runner:
        run_clip(pair, runner, film, tmp_path / "a", Every(3), ALL)
    run_clip(pair, CpuRunner(pair), film, tmp_path / "b", Every(3), ALL)
    assert assert_same_tracks(tracks_of(tmp_path / "a"), tracks_of(tmp_path / "b"), 0.99) >= 0.99
