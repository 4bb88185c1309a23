"""Run a clip through an exported pair: a stream of pictures in; overlay, tracks, timings out."""

from __future__ import annotations

import csv
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import GraphRunner
from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.core.files import write_atomically, write_json
from mobileinst_deploy.core.masks import decode
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import RunReport
from mobileinst_deploy.core.schedule import Auto, Every
from mobileinst_deploy.core.tracker import (
    FrameModel,
    KnownTrack,
    RunnerModel,
    TrackedFrame,
    Tracker,
    TrackSettings,
)
from mobileinst_deploy.media.letterbox import fit, unfit_masks
from mobileinst_deploy.media.overlay import Shape, draw_overlay
from mobileinst_deploy.media.overlay_file import OverlayFile, write_picture
from mobileinst_deploy.media.track_file import TrackFile
from mobileinst_deploy.media.video import Clip, Picture
from mobileinst_deploy.phone.track_loop import DeviceLoop, PlanRunner
from mobileinst_deploy.phone.track_plan import DEVICE_STAGES, DeviceFrame

#: What a frame passes, in order; ``timings.csv`` has a column for each, in ms.
STAGES = ("read", "prepare", "graphs", "track", "masks", "draw", "write")
#: What an emulator did, whose time is not told.
_EMULATED = ("prepare", "graphs", "track")

_Result = TrackedFrame | DeviceFrame


def run_clip(
    bundle: ExportBundle,
    runner: GraphRunner,
    clip: Clip,
    folder: Path,
    schedule: Every | Auto,
    settings: TrackSettings,
    *,
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
        progress: Told of each frame.

    Raises:
        MediaError: The clip has no readable picture, or not to its end.
        OutputError: The results cannot be written.
        DeviceError: The runner failed.
        KeyboardInterrupt: The user's; every result is in place by then.
    """
    work = _Run(bundle, runner, clip, folder, schedule, settings)
    try:
        work.through(progress)
        return work.finish(stopped=None)
    except MobileInstError as error:
        if not work.frames:
            raise
        work.finish(stopped=error.cause)
        raise type(error)(
            error.cause, f"{error.next_step}; the {work.frames} frames before are in {folder}"
        ) from error
    except KeyboardInterrupt:
        if work.frames:
            work.finish(stopped="interrupted")
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
    ) -> None:
        self._bundle = bundle
        self._runner = runner
        self._clip = clip
        self._folder = folder
        self._schedule = schedule
        self._settings = settings
        self._clock = _Clock()
        specs = {role: graph.spec for role, graph in bundle.graphs.items()}
        model = _TimedModel(RunnerModel(runner, specs), self._clock)
        self._tracker = Tracker(model, schedule, settings)
        # A device does the whole loop itself.
        self._loop: DeviceLoop | None = None
        if isinstance(runner, PlanRunner):
            self._loop = DeviceLoop(bundle, runner, schedule, settings)
        self._overlay = OverlayFile(folder / "overlay.mp4", clip)
        self._tracks: TrackFile | None = None
        self._size = (0, 0)
        self.frames = 0
        self._keyframes = 0

    def through(self, progress: Progress) -> None:
        """Run the whole clip and make the overlay whole, even when this ends by an exception."""
        with self._overlay:
            for picture, result, masks in self._followed():
                self._one(picture, result, masks)
                progress(f"run {self._clip.name}", self.frames, self._clip.expected)
        # The encoder works behind; only now is everything written.
        self._clock.stop()

    def close(self) -> None:
        """Let go of what is not a result."""
        if self._tracks is not None:
            self._tracks.close()

    def _read(self) -> Iterator[Picture]:
        pictures = iter(self._clip)
        while True:
            with self._clock.stage("read"):
                picture = next(pictures, None)
            if picture is None:
                return
            yield picture

    def _followed(self) -> Iterator[tuple[Picture, _Result, np.ndarray]]:
        """Each picture with what was found in it and the masks at its own size."""
        return self._on_host() if self._loop is None else self._on_device(self._loop)

    def _on_host(self) -> Iterator[tuple[Picture, _Result, np.ndarray]]:
        clock, config = self._clock, self._bundle.config
        for picture in self._read():
            with clock.stage("prepare"):
                fitted, geometry = fit(picture.pixels, config.input_size)
                image = np.ascontiguousarray(fitted.transpose(2, 0, 1)[None], np.float32)
            with clock.stage("track"):
                result = self._tracker.step(image)
            with clock.stage("masks"):
                masks = unfit_masks(result.mask_logits, geometry)
            yield picture, result, masks

    def _on_device(self, loop: DeviceLoop) -> Iterator[tuple[Picture, _Result, np.ndarray]]:
        for followed in loop.follow(self._read()):
            with self._clock.stage("masks"):
                size = followed.geometry.original
                found = [decode(rle) for rle in followed.frame.masks]
                masks = np.stack(found) if found else np.zeros((0, *size), bool)
            if not self._runner.emulated:
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
        with clock.stage("draw"):
            drawn = draw_overlay(picture.pixels, self._shapes(result, masks), result.since == 0)
        with clock.stage("write"):
            if self._clip.still:
                write_picture(self._folder / "overlay.png", drawn)
            else:
                self._overlay.write(drawn, picture.pts)
        self.frames += 1
        self._keyframes += result.since == 0
        clock.next_frame(picture.pts * self._clip.time_base, result)

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
        kinds = Counter(names[track.class_index] for track in tracks.values())
        if self._tracks is not None:
            self._tracks.write(tracks)
        emulated = self._runner.emulated
        seconds = self._clock.totals()
        untold = _EMULATED if emulated else ()
        for stage in untold:
            del seconds[stage]
        self._clock.write(self._folder / "timings.csv", untold)
        overlay = "overlay.png" if self._clip.still else "overlay.mp4"
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
            notes=tuple(self._overlay.notes),
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


class _TimedModel:
    """A model whose time goes to the stage ``graphs``."""

    def __init__(self, model: FrameModel, clock: _Clock) -> None:
        self._model = model
        self._clock = clock

    def frame(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        with self._clock.stage("graphs"):
            return self._model.frame(image)

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        with self._clock.stage("graphs"):
            return self._model.mask_head(image, kernels)


class _Clock:
    """Time per stage and frame; a stage within a stage stops the outer one's clock."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self.wall_seconds = 0.0
        self._now = dict.fromkeys(STAGES, 0.0)
        self._open: list[str] = []
        self._mark = 0.0
        self._rows = array("d")
        self._width = 3 + len(STAGES)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self._now[self._open[-1]] += now - self._mark
        self._mark = now

    def add(self, name: str, seconds: float) -> None:
        """Time that a device says it took."""
        self._now[name] += seconds

    def next_frame(self, shown_at: Fraction, result: _Result) -> None:
        self._rows.extend((float(shown_at), result.since, len(result.ids)))
        self._rows.extend(1000 * self._now[stage] for stage in STAGES)
        self._now = dict.fromkeys(STAGES, 0.0)
        self.stop()

    def stop(self) -> None:
        self.wall_seconds = time.perf_counter() - self._begun

    def _table(self) -> np.ndarray:
        return np.array(self._rows).reshape(-1, self._width)

    def totals(self) -> dict[str, float]:
        sums = self._table()[:, 3:].sum(axis=0) / 1000
        return dict(zip(STAGES, sums.tolist(), strict=True))

    def write(self, path: Path, untold: Sequence[str]) -> None:
        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(
                    ["frame", "seconds", "since_keyframe", "instances"]
                    + [f"{stage}_ms" for stage in STAGES]
                )
                for index, row in enumerate(self._table().tolist()):
                    times = [f"{ms:.3f}" for ms in row[3:]]
                    for stage in untold:
                        times[STAGES.index(stage)] = ""
                    rows.writerow([index, f"{row[0]:.6f}", int(row[1]), int(row[2]), *times])

        write_atomically(path, write)
