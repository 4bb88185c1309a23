"""The runner's mode ``track``: what it is told, and what it says about each frame.

The lines and the tensors are described in ``android_bench/README.md``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from mobileinst_deploy.core.contract import (
    CLASS_LOGITS,
    KERNELS,
    MASK_LOGITS,
    ROLES,
    GraphSpec,
    Role,
)
from mobileinst_deploy.core.errors import ConfigError, DatasetError, DeviceError
from mobileinst_deploy.core.masks import Rle, rle_runs
from mobileinst_deploy.core.schedule import Auto, Every
from mobileinst_deploy.core.tracker import TrackSettings
from mobileinst_deploy.media.letterbox import Geometry
from mobileinst_deploy.phone.plan import Plan

#: What a frame passes on the device, in order; the runner says ms for each.
DEVICE_STAGES = ("read", "prepare", "graphs", "track", "masks")

_FRAMES_FILE, _STATE_FILE = "frames.rgb", "state.bin"
_MOST_FRAMES = 1_000_000
_LONGEST_MEMORY = 1_000_000_000
_AGAIN = "Assemble the bundle again with `mobileinst device prepare --force`"


@dataclass(frozen=True)
class TrackPlan(Plan):
    """Follow some frames of a clip on the device; see :class:`~mobileinst_deploy.phone.plan.Plan`.

    Attributes:
        specs: The pair's signatures.
        pictures: Frames, (H, W, 3) uint8 RGB each, of the input size, from
            :func:`~mobileinst_deploy.media.letterbox.fit`.
        geometry: Theirs: masks are made for the picture behind them.
        schedule: When keyframes come.
        settings: What counts as an instance.
        logits: Whether to bring the mask logits back as well.
        state: What the device said after the frames before these; empty when a clip begins.
    """

    specs: Mapping[Role, GraphSpec] = field(default_factory=dict)
    pictures: Sequence[np.ndarray] = field(default=(), repr=False)
    geometry: Geometry = field(default_factory=lambda: Geometry((0, 0), (0, 0), (0, 0)))
    schedule: Every | Auto = field(default_factory=lambda: Every(3))
    settings: TrackSettings = field(default_factory=TrackSettings)
    logits: bool = False
    state: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """Refuse pictures that the graphs do not take.

        Raises:
            ConfigError: They are none, or not of the input size.
        """
        shape = (*self.geometry.input_size, 3)
        if not 0 < len(self.pictures) <= _MOST_FRAMES or any(
            p.shape != shape or p.dtype != np.uint8 for p in self.pictures
        ):
            raise ConfigError(
                f"the frames to follow are not uint8 pictures of {shape[0]}x{shape[1]} pixels",
                "Fit them to the model's input size",
            )

    def _roles(self) -> set[Role]:
        return set(ROLES)

    def _own(self, files: dict[str, bytes]) -> list[tuple[str, ...]]:
        frame = {t.name: t.shape for t in self.specs["frame"].outputs}
        live = self.specs["mask_head"].inputs[1].shape[1]
        s, geometry, schedule = self.settings, self.geometry, self.schedule
        longest = schedule.longest if isinstance(schedule, Auto) else schedule.clip_length
        model = (*frame[CLASS_LOGITS][1:], frame[KERNELS][2], *geometry.input_size)
        numbers = (s.score, s.keep, s.similarity, s.duplicate_iou, s.overlap)
        packed = b"".join(np.ascontiguousarray(p).tobytes() for p in self.pictures)
        files[_FRAMES_FILE] = packed
        lines: list[tuple[str, ...]] = [
            ("model", *map(str, model), str(live) if isinstance(live, int) else "0"),
            ("picture", *map(str, (*geometry.original, *geometry.content))),
            (
                "tracking",
                str(longest),
                *(repr(float(n)) for n in numbers),
                *(str(int(min(n, _LONGEST_MEMORY))) for n in (s.memory, s.remembered)),
            ),
            ("frames", _FRAMES_FILE, str(len(self.pictures)), f"{zlib.crc32(packed):08x}"),
        ]
        lines += [
            ("carried", t.name, t.dtype, ",".join(map(str, t.shape)))
            for t in self.specs["frame"].outputs
            if t.name.startswith("context_")
        ]
        if isinstance(schedule, Auto):
            lines.append(("automatic", repr(schedule.change), repr(schedule.certainty)))
        if self.logits:
            lines.append(("logits", "1"))
        if self.state:
            files[_STATE_FILE] = self.state
            lines.append(("state", _STATE_FILE, f"{zlib.crc32(self.state):08x}"))
        return lines


@dataclass(frozen=True)
class DeviceTrack:
    """A track as a keyframe left it.

    Attributes:
        id: Its identity, from 1 up.
        class_index: The class of the highest score.
        score: That score, over all keyframes so far.
    """

    id: int
    class_index: int
    score: float


@dataclass(frozen=True)
class DeviceFrame:
    """What the device found in one frame; k instances, k from 0 up.

    Attributes:
        since: Frames since the keyframe, 0 on a keyframe.
        ids: (k,) int64, ascending.
        classes: (k,) int64.
        scores: (k,) float32.
        masks: k run-length masks of the picture's size; one may be empty on a reuse frame.
        seen: Every track that a keyframe saw, also those too weak to be shown.
        ms: Time of each of :data:`DEVICE_STAGES`.
        mask_logits: (k, H/8, W/8) float32 where the plan asked for them, else None.
    """

    since: int
    ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: tuple[Rle, ...] = field(repr=False)
    seen: tuple[DeviceTrack, ...] = ()
    ms: tuple[float, ...] = ()
    mask_logits: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Columns:
    """The tensors of one run, with their dtypes; one that has no entry is not sent."""

    since: np.ndarray = field(metadata={"dtype": "int32"})
    instances: np.ndarray = field(metadata={"dtype": "int32"})
    stages: np.ndarray = field(metadata={"dtype": "float32"})
    ids: np.ndarray = field(metadata={"dtype": "int64"})
    classes: np.ndarray = field(metadata={"dtype": "int32"})
    scores: np.ndarray = field(metadata={"dtype": "float32"})
    rle_bytes: np.ndarray = field(metadata={"dtype": "int32"})
    rle: np.ndarray = field(metadata={"dtype": "uint8"})
    mask_logits: np.ndarray = field(metadata={"dtype": "float32"})
    seen_frames: np.ndarray = field(metadata={"dtype": "int32"})
    seen_ids: np.ndarray = field(metadata={"dtype": "int64"})
    seen_classes: np.ndarray = field(metadata={"dtype": "int32"})
    seen_scores: np.ndarray = field(metadata={"dtype": "float32"})
    state: np.ndarray = field(metadata={"dtype": "uint8"})


def read_frames(
    tensors: Mapping[str, np.ndarray], plan: TrackPlan
) -> tuple[list[DeviceFrame], bytes]:
    """Understand what the mode ``track`` returned, trusting none of it.

    Args:
        tensors: By name, from :func:`mobileinst_deploy.phone.result.read_tensors`.
        plan: What the device was told.

    Returns:
        One entry per picture of the plan, and the state to go on from.

    Raises:
        DeviceError: It is not what such a plan can lead to.
    """
    columns = _columns(tensors)
    frames, total = len(plan.pictures), int(columns.instances.sum())
    outputs = {t.name: t.shape for t in plan.specs["frame"].outputs}
    queries, classes = outputs[CLASS_LOGITS][1:]
    if not (isinstance(queries, int) and isinstance(classes, int)):
        raise _malformed("the frame graph has a free axis")
    seen = len(columns.seen_ids)
    per_frame = len(columns.since) == len(columns.instances) == frames
    per_stage = columns.stages.shape == (frames * len(DEVICE_STAGES),)
    alike = {len(c) for c in (columns.ids, columns.classes, columns.scores, columns.rle_bytes)}
    seen_alike = {len(columns.seen_classes), len(columns.seen_scores), len(columns.seen_frames)}
    if not (per_frame and per_stage and alike == {total} and seen_alike == {seen}):
        raise _malformed("its columns differ in length")
    grid = outputs[MASK_LOGITS][2:]
    if columns.mask_logits.size != plan.logits * total * math.prod(map(int, grid)):
        raise _malformed("the mask logits are not those of its masks")
    in_range = (
        _within(columns.since, 0, _MOST_FRAMES)
        and _within(columns.instances, 0, queries)
        and _within(columns.ids, 1, 2**48)
        and _within(columns.seen_ids, 1, 2**48)
        and _within(columns.classes, 0, classes - 1)
        and _within(columns.seen_classes, 0, classes - 1)
        and _within(columns.scores, 0, 1)
        and _within(columns.seen_scores, 0, 1)
        and _within(columns.seen_frames, 0, frames - 1)
        and _within(columns.rle_bytes, 1, len(columns.rle))
        and _within(columns.stages, 0, 1e9)
        and bool(np.isfinite(columns.mask_logits).all())
    )
    if not in_range or columns.rle_bytes.sum(dtype=np.int64) != len(columns.rle):
        raise _malformed("a value is out of range")
    logits = columns.mask_logits.reshape(total, *map(int, grid)) if plan.logits else None
    return _frames(columns, logits, plan.geometry.original), columns.state.tobytes()


def _columns(tensors: Mapping[str, np.ndarray]) -> _Columns:
    known = {f.name: np.dtype(f.metadata["dtype"]) for f in fields(_Columns)}
    for name, value in tensors.items():
        if name not in known or value.ndim != 1 or value.dtype != known[name]:
            raise _malformed(f"{name} is {value.dtype} {value.shape}")
    return _Columns(**{n: tensors.get(n, np.empty(0, dtype)) for n, dtype in known.items()})


def _frames(
    columns: _Columns, logits: np.ndarray | None, size: tuple[int, int]
) -> list[DeviceFrame]:
    texts = columns.rle.tobytes()
    rle_ends = np.cumsum(columns.rle_bytes, dtype=np.int64)
    stages = columns.stages.reshape(-1, len(DEVICE_STAGES)).tolist()
    result: list[DeviceFrame] = []
    first = 0
    for index, count in enumerate(columns.instances.tolist()):
        span = slice(first, first + count)
        first += count
        ids = columns.ids[span]
        if (np.diff(ids) <= 0).any():
            raise _malformed("identities do not ascend")
        masks = tuple(
            _mask(texts[end - length : end], size)
            for end, length in zip(
                rle_ends[span].tolist(), columns.rle_bytes[span].tolist(), strict=True
            )
        )
        here = np.flatnonzero(columns.seen_frames == index)
        seen = zip(
            columns.seen_ids[here].tolist(),
            columns.seen_classes[here].tolist(),
            columns.seen_scores[here].tolist(),
            strict=True,
        )
        result.append(
            DeviceFrame(
                int(columns.since[index]),
                ids,
                columns.classes[span].astype(np.int64),
                columns.scores[span],
                masks,
                tuple(DeviceTrack(*one) for one in seen),
                tuple(stages[index]),
                None if logits is None else logits[span],
            )
        )
    return result


def _mask(text: bytes, size: tuple[int, int]) -> Rle:
    try:
        rle: Rle = {"size": list(size), "counts": text.decode("ascii")}
        rle_runs(rle)
    except (UnicodeDecodeError, DatasetError):
        raise _malformed("a mask's run lengths do not fill its picture") from None
    return rle


def _within(values: np.ndarray, low: float, high: float) -> bool:
    return bool(((values >= low) & (values <= high)).all())


def _malformed(why: str) -> DeviceError:
    return DeviceError(f"the tracks from the device are not understood: {why}", _AGAIN)
