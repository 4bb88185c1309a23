"""A clip followed where the graphs run: frames go to the device in batches, tracks come back.

What an app would do happens on the device: preparing, both graphs, tracking, run-length masks. Only
decoding, resizing and drawing stay here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.config import MASK_STRIDE
from mobileinst_deploy.core.errors import ConfigError, DeviceError, MobileInstError
from mobileinst_deploy.core.schedule import Auto, Every
from mobileinst_deploy.core.tracker import TrackedFrame, TrackSettings
from mobileinst_deploy.media.clip import Picture
from mobileinst_deploy.media.letterbox import Geometry, fit
from mobileinst_deploy.phone.track_plan import DeviceFrame, DeviceTrack, TrackPlan, read_frames
from mobileinst_deploy.runtimes.device import DeviceRunner

#: Pictures wait here for the device's answer, at most about so many bytes of them.
_BATCH_BYTES = 192 << 20


@dataclass(frozen=True)
class Followed:
    """One picture and what the device found in it.

    Attributes:
        picture: As it was read.
        geometry: Where it lies inside the network input.
        frame: From the device.
        read_s: Time until the picture was here, s.
        fit_s: Time to fit it to the network's input, s.
        transfer_s: Its share of its batch's way to the device and back, s: pushing, starting the
            runner, fetching; all that the device does not count as its own work.
    """

    picture: Picture = field(repr=False)
    geometry: Geometry
    frame: DeviceFrame
    read_s: float
    fit_s: float
    transfer_s: float


@dataclass(frozen=True)
class _Waiting:
    """A picture on its way to the device."""

    picture: Picture
    fitted: np.ndarray
    geometry: Geometry
    read_s: float
    fit_s: float


class DeviceLoop:
    """Follows one clip on a device.

    Args:
        bundle: The pair.
        runner: Starts the on-device runner, which has that pair.
        schedule: When keyframes come.
        settings: What counts as an instance.
        logits: Whether to bring the mask logits back as well.
        batch: Pictures per start of the runner; None fits them to memory.

    Attributes:
        tracks: Every track ever born, by identity.
    """

    def __init__(
        self,
        bundle: ExportBundle,
        runner: DeviceRunner,
        schedule: Every | Auto,
        settings: TrackSettings | None = None,
        *,
        logits: bool = False,
        batch: int | None = None,
    ) -> None:
        if bundle.config.mask_stride != MASK_STRIDE:
            raise DeviceError(
                f"a device tracks with masks at 1/{MASK_STRIDE} of the picture, and this network's "
                f"are at 1/{bundle.config.mask_stride}",
                "Track on this machine, with --device cpu",
            )
        self._specs = bundle.specs
        self._input_size = bundle.config.input_size
        self._runner = runner
        self._schedule = schedule
        self._logits = logits
        height, width = bundle.config.mask_size
        self._logit_bytes = logits * bundle.config.num_queries * height * width * 4
        self._settings = settings or TrackSettings()
        self._batch = batch
        self._state = b""
        self.tracks: dict[int, DeviceTrack] = {}

    def follow(self, pictures: Iterable[Picture]) -> Iterator[Followed]:
        """Follow a clip to its end, or to the picture that cannot be read.

        Args:
            pictures: Of one size; read some ahead, never more than a batch.

        Yields:
            One result per picture, in order.

        Raises:
            DeviceError: The device failed or its answer is not to be believed.
            MobileInstError: What ended the pictures, after the results of those before.
        """
        stream, ended = iter(pictures), None
        while ended is None:
            waiting: list[_Waiting] = []
            most = 1
            while len(waiting) < most and ended is None:
                try:
                    asked = time.perf_counter()
                    picture = next(stream)
                    got = time.perf_counter()
                    fitted, geometry = fit(picture.pixels, self._input_size)
                    fit_s = time.perf_counter() - got
                    waiting.append(_Waiting(picture, fitted, geometry, got - asked, fit_s))
                    size = picture.pixels.nbytes + fitted.nbytes + self._logit_bytes
                    most = self._batch or max(1, _BATCH_BYTES // size)
                except (MobileInstError, StopIteration) as end:
                    ended = end
            yield from self._on_device(waiting)
        if isinstance(ended, MobileInstError):
            raise ended

    def track(self, images: Iterable[np.ndarray]) -> Iterator[TrackedFrame]:
        """Follow prepared pictures, as ``track_clip`` does on this machine.

        Args:
            images: (1, 3, H, W) each, whole numbers from 0 to 255, of the input size.

        Raises:
            ConfigError: The loop was made without ``logits``.
            DeviceError: As for :meth:`follow`.
        """
        pictures = (
            Picture(np.ascontiguousarray(image[0].transpose(1, 2, 0), np.uint8), index)
            for index, image in enumerate(images)
        )
        for index, followed in enumerate(self.follow(pictures)):
            found = followed.frame
            if found.mask_logits is None:
                raise ConfigError("the device was not asked for mask logits", "Ask for them")
            yield TrackedFrame(
                index, found.since, found.ids, found.classes, found.scores, found.mask_logits
            )

    def _on_device(self, waiting: list[_Waiting]) -> Iterator[Followed]:
        if not waiting:
            return
        plan = TrackPlan(
            "track",
            (),
            limit_seconds=self._runner.limit_seconds,
            specs=self._specs,
            pictures=[each.fitted for each in waiting],
            geometry=waiting[0].geometry,
            schedule=self._schedule,
            settings=self._settings,
            logits=self._logits,
            state=self._state,
        )
        started = time.perf_counter()
        answers = self._runner.tensors(plan)
        took = time.perf_counter() - started
        if len(answers) != 1:
            raise DeviceError(
                f"{self._runner.name} gave {len(answers)} answers to one clip",
                "Assemble the bundle again with `mobileinst device prepare --force`",
            )
        frames, self._state = read_frames(answers[0], plan)
        for track in chain.from_iterable(frame.seen for frame in frames):
            self.tracks[track.id] = track
        own = sum(chain.from_iterable(frame.ms for frame in frames)) / 1000
        share = max(0.0, took - own) / len(frames)
        for each, frame in zip(waiting, frames, strict=True):
            yield Followed(each.picture, each.geometry, frame, each.read_s, each.fit_s, share)
