"""Run a clip through an exported pair: a stream of pictures in; overlay, tracks, timings out."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.contract import Call, GraphRunner
from mobileinst_deploy.core.errors import MobileInstError, OutputError
from mobileinst_deploy.core.files import require_writable, write_json
from mobileinst_deploy.core.masks import decode
from mobileinst_deploy.core.pair_files import MANIFEST
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import RunReport
from mobileinst_deploy.core.run_folder import upright_of
from mobileinst_deploy.core.schedule import Auto, Every, parse_schedule
from mobileinst_deploy.core.text import counted
from mobileinst_deploy.core.tracker import (
    KnownTrack,
    TrackedFrame,
    Tracker,
    TrackSettings,
    settings_of,
)
from mobileinst_deploy.media.clip import Clip, Picture
from mobileinst_deploy.media.letterbox import Geometry, is_upright, prepare
from mobileinst_deploy.media.overlay import Shape, draw_overlay
from mobileinst_deploy.media.overlay_file import OverlayFile, write_picture
from mobileinst_deploy.media.read_ahead import ReadAhead
from mobileinst_deploy.media.track_file import TrackFile
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.phone.track_plan import DEVICE_STAGES, DeviceFrame
from mobileinst_deploy.runtimes import as_computed, known_runtime, open_runner
from mobileinst_deploy.runtimes.device import DeviceRunner
from mobileinst_deploy.runtimes.track_loop import DeviceLoop
from mobileinst_deploy.workflows.stage_clock import StageClock
from mobileinst_deploy.workflows.track import SCORE, step

RUN_FILE = "run.json"
#: Everything that a run may write.
FILES = ("overlay.mp4", "overlay.png", "tracks.json", "timings.csv", RUN_FILE)
#: What an emulator did, whose time is not told.
_EMULATED = ("prepare", "transfer", "graphs", "track")

_Result = TrackedFrame | DeviceFrame
_Frames = Generator[tuple[Picture, _Result, np.ndarray], None, None]


def run(
    folder: Path,
    source: str,
    output: Path,
    *,
    clip_length: str = "3",
    score: float = SCORE,
    association: str = "remembering",
    fps: Fraction | None = None,
    device: str = "cpu",
    serial: str | None = None,
    runtime: str = "onnxruntime",
    overlay: bool = True,
    progress: Progress = silent,
) -> RunReport:
    """Segment and track a clip with an exported pair; see :func:`run_clip` for what it writes.

    Args:
        folder: The pair's. Where a pair for upright pictures lies beside it, that one runs upright
            clips.
        source: A video, a picture, a folder of pictures, or a camera's number.
        output: Folder for the results.
        clip_length: T, a keyframe every T frames, or ``auto``.
        score: Lowest score of an instance, in [0, 1].
        association: ``remembering``, or the paper's ``consecutive``.
        fps: Frames per second of a raw stream or a folder of pictures, which say nothing of it.
        device: Where the graphs run: ``cpu``, ``adb`` or ``qemu``.
        serial: Which phone.
        runtime: What runs the graphs.
        overlay: Whether to draw and write what was found.
        progress: Told of each frame.

    Raises:
        InputError: Something that was handed over cannot be used.
        DeviceError: The device is missing or failed.
        OutputError: The results cannot be written, or would replace what is not an older run's.
    """
    known_runtime(runtime)
    bundle = as_computed(load_bundle(folder), runtime)
    schedule = parse_schedule(clip_length)
    settings = settings_of(association, score)
    clip = open_clip(source, fps)
    bundle = _fitting(bundle, folder, clip)
    require_own(output)
    require_writable(output / RUN_FILE)
    with open_runner(bundle, device, runtime, serial=serial, progress=progress) as runner:
        return run_clip(
            bundle, runner, clip, output, schedule, settings, overlay=overlay, progress=progress
        )


def _fitting(bundle: ExportBundle, folder: Path, clip: Clip) -> ExportBundle:
    """The pair itself, or the one beside it for the other orientation, if the clip is of that.

    Raises:
        BundleError: The other pair is broken.
        MediaError: The clip has no readable picture.
    """
    other = upright_of(folder)
    if not (other / MANIFEST).is_file():
        return bundle
    size = next(iter(clip)).pixels.shape[:2]
    return load_bundle(other) if is_upright(size) else bundle


def require_own(folder: Path) -> None:
    """Find out before the work that nothing but an older run's results would be replaced.

    Raises:
        OutputError: A file of the same name is there, and no run's report beside it.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there and RUN_FILE not in there:
        raise OutputError(
            f"{folder / there[0]} is there already and no run wrote it", "Give another folder"
        )


def run_clip(
    bundle: ExportBundle,
    runner: GraphRunner,
    clip: Clip,
    folder: Path,
    schedule: Every | Auto,
    settings: TrackSettings,
    *,
    overlay: bool = True,
    progress: Progress = silent,
) -> RunReport:
    """Segment and track a clip.

    Writes ``overlay.mp4`` (``overlay.png`` for a picture), ``tracks.json``, ``timings.csv`` (per
    frame) and ``run.json`` (the report). Memory does not grow with the clip, but for some dozens of
    bytes per frame and mask.

    Whatever ends the run early, from Ctrl-C to a damaged clip, the frames before it are written as
    a whole clip would be, and then the cause is raised.

    Args:
        bundle: The pair.
        runner: Runs its graphs.
        clip: The pictures.
        folder: Where the results go; made when missing, and only once a picture could be read.
        schedule: Which frames become keyframes.
        settings: What counts as an instance.
        overlay: Whether to draw and write what was found.
        progress: Told of each frame.

    Raises:
        MediaError: The clip has no readable picture, or not to its end.
        OutputError: The results cannot be written.
        DeviceError: The runner failed.
        KeyboardInterrupt: The user's; every result is in place by then.
    """
    work = _Run(bundle, runner, clip, folder, schedule, settings, overlay)
    try:
        work.through(progress)
        return work.finish(stopped=None)
    except MobileInstError as error:
        if not work.frames:
            raise
        work.finish(stopped=error.cause)
        raise type(error)(error.cause, f"{error.next_step}; the {work.kept()}") from error
    except KeyboardInterrupt as error:
        if work.frames:
            work.finish(stopped="interrupted")
            error.add_note(f"The {work.kept()}.")
        raise
    finally:
        work.close()


class _Run:
    """What one run holds open and counts."""

    def __init__(
        self,
        bundle: ExportBundle,
        runner: GraphRunner,
        clip: Clip,
        folder: Path,
        schedule: Every | Auto,
        settings: TrackSettings,
        overlay: bool,
    ) -> None:
        self._bundle = bundle
        self._runner = runner
        self._clip = clip
        self._folder = folder
        self._schedule = schedule
        self._settings = settings
        self._drawn = overlay
        self._clock = StageClock()
        self._tracker = Tracker(_Timed(runner, self._clock), schedule, settings)
        # A device does the whole loop itself.
        self._loop: DeviceLoop | None = None
        if isinstance(runner, DeviceRunner):
            self._loop = DeviceLoop(bundle, runner, schedule, settings)
        self._overlay = OverlayFile(folder / "overlay.mp4", clip)
        self._tracks: TrackFile | None = None
        self._size = (0, 0)
        self.frames = 0
        self._keyframes = 0

    def through(self, progress: Progress) -> None:
        """Run the whole clip and make the overlay whole, even when this ends by an exception."""
        with self._overlay, contextlib.closing(self._followed()) as followed:
            for picture, result, masks in followed:
                self._one(picture, result, masks)
                progress(f"run {self._clip.name}", self.frames, self._clip.expected)
        # The encoder works behind; only now is everything written.
        self._clock.stop()

    def kept(self) -> str:
        """What is there though the run did not come to its end."""
        return f"results of {counted(self.frames, 'frame')} are in {self._folder}"

    def close(self) -> None:
        """Let go of what is not a result."""
        if self._tracks is not None:
            self._tracks.close()

    def _prepared(self) -> Iterator[_Prepared]:
        """What the reader's thread makes: resizing is work that the network need not wait for."""
        size = self._bundle.config.input_size
        for picture in self._clip:
            yield _Prepared(picture, *prepare(picture.pixels, size))

    def _read(self) -> Iterator[_Prepared]:
        with ReadAhead(self._prepared()) as pictures:
            while True:
                with self._clock.stage("read"):
                    prepared = next(pictures, None)
                if prepared is None:
                    return
                yield prepared

    def _followed(self) -> _Frames:
        """Each picture with what was found in it and the masks at its own size."""
        return self._on_host() if self._loop is None else self._on_device(self._loop)

    def _on_host(self) -> _Frames:
        for each in self._read():
            found = step(self._tracker, each.image, each.geometry, self._clock.stage)
            yield each.picture, *found

    def _on_device(self, loop: DeviceLoop) -> _Frames:
        for followed in loop.follow(self._clip):
            self._clock.add("read", followed.read_s)
            with self._clock.stage("masks"):
                size = followed.geometry.original
                found = [decode(rle) for rle in followed.frame.masks]
                masks = np.stack(found) if found else np.zeros((0, *size), bool)
            if not self._runner.emulated:
                self._clock.add("prepare", followed.fit_s)
                self._clock.add("transfer", followed.transfer_s)
                for stage, ms in zip(DEVICE_STAGES, followed.frame.ms, strict=True):
                    self._clock.add(stage, ms / 1000)
            yield followed.picture, followed.frame, masks

    def _one(self, picture: Picture, result: _Result, masks: np.ndarray) -> None:
        clock = self._clock
        if self._tracks is None:
            self._size = picture.pixels.shape[:2]
            self._tracks = TrackFile(self._folder / "tracks.json")
        with clock.stage("masks"):
            self._tracks.add(result.ids, masks)
        if self._drawn:
            self._draw(picture, result, masks)
        self.frames += 1
        self._keyframes += result.since == 0
        shown_at = picture.pts * self._clip.time_base
        clock.next_frame(shown_at, result.since, len(result.ids))

    def _draw(self, picture: Picture, result: _Result, masks: np.ndarray) -> None:
        with self._clock.stage("draw"):
            drawn = draw_overlay(picture.pixels, self._shapes(result, masks), result.since == 0)
        with self._clock.stage("write"):
            if self._clip.still:
                write_picture(self._folder / "overlay.png", drawn)
            else:
                self._overlay.write(drawn, picture.pts)

    def _shapes(self, result: _Result, masks: np.ndarray) -> Iterator[Shape]:
        """The strongest last, so that it lies on top."""
        for i in np.argsort(result.scores, kind="stable"):
            name = self._bundle.config.classes[result.classes[i]]
            identity = int(result.ids[i])
            yield Shape(identity, f"{name} {result.scores[i]:.2f}  #{identity}", masks[i])

    def finish(self, *, stopped: str | None) -> RunReport:
        """Write tracks, timings and the report."""
        names = self._bundle.config.classes
        tracks: Mapping[int, KnownTrack] = (self._loop or self._tracker).tracks
        seen = self._tracks.identities if self._tracks is not None else frozenset()
        kinds = Counter(names[t.class_index] for t in tracks.values() if t.id in seen)
        if self._tracks is not None:
            self._tracks.write(tracks)
        emulated = self._runner.emulated
        seconds = self._clock.totals()
        untold = _EMULATED if emulated else ()
        for stage in untold:
            del seconds[stage]
        self._clock.write(self._folder / "timings.csv", untold)
        overlay = "overlay.png" if self._clip.still else "overlay.mp4"
        if not self._drawn:  # an older run's would show other tracks than those beside it
            (self._folder / overlay).unlink(missing_ok=True)
        report = RunReport(
            bundle_sha256=self._bundle.sha256,
            model_id=self._bundle.model_id,
            trained=self._bundle.trained,
            device=self._runner.name,
            runtime=self._runner.runtime,
            emulated=emulated,
            source=self._clip.name,
            size=self._size,
            frames=self.frames,
            expected=self._clip.expected,
            stopped=stopped,
            schedule=self._schedule.name,
            settings=asdict(self._settings),
            keyframes=self._keyframes,
            tracks=dict(sorted(kinds.items())),
            seconds=seconds,
            wall_seconds=self._clock.wall_seconds,
            notes=tuple(filter(None, (*self._overlay.notes, self._bundle.caveat))),
            files={
                kind: str(self._folder / name)
                for kind, name in (
                    ("overlay", overlay),
                    ("tracks", "tracks.json"),
                    ("timings", "timings.csv"),
                    ("report", "run.json"),
                )
                if name == "run.json" or (self._folder / name).exists()
            },
        )
        write_json(self._folder / "run.json", report.to_dict())
        return report


@dataclass(frozen=True)
class _Prepared:
    """A picture as the graphs take it."""

    picture: Picture
    image: np.ndarray
    geometry: Geometry


class _Timed:
    """A runner whose time goes to the stage ``graphs``."""

    def __init__(self, runner: GraphRunner, clock: StageClock) -> None:
        self.name, self.runtime, self.emulated = runner.name, runner.runtime, runner.emulated
        self.specs = runner.specs
        self._runner = runner
        self._clock = clock

    def outputs(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        with self._clock.stage("graphs"):
            return self._runner.outputs(calls)
