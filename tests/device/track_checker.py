"""The tracker's C++ library as a process that answers, and clips that both trackers follow."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import native
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from mobileinst_deploy.core.contract import Call, GraphSpec, Role, TensorSpec
from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.core.schedule import Auto, Every
from mobileinst_deploy.core.tracker import Tracker, TrackSettings
from mobileinst_deploy.media.letterbox import geometry_of, unfit_masks

FAST = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


#: No answer takes longer, sanitizers and a busy machine included.
SECONDS = 30


class Checker:
    """``track_check`` as a process that answers clip after clip.

    A conversation that ends early, as when an assertion fails, leaves the process out of step; the
    next one then begins with a new process.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """Whatever is said and heard within belongs together."""
        if self._process is None:
            self._heard = b""
            self._process = subprocess.Popen(
                [native.program("track_check")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        try:
            yield
        except BaseException:
            self._process.kill()
            self._process.communicate()
            self._process = None
            raise

    def say(self, line: str) -> str:
        with self.conversation():
            self.send(f"{line}\n".encode())
            return self.hear()

    def send(self, data: bytes) -> None:
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process
        assert self._process.stdout
        stream = self._process.stdout.fileno()
        while b"\n" not in self._heard:
            assert select.select([stream], [], [], SECONDS)[0], "the tracker does not return"
            more = os.read(stream, 1 << 16)
            assert more, "the tracker died"
            self._heard += more
        answer, _, self._heard = self._heard.partition(b"\n")
        return answer.decode()

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=SECONDS)
            assert self._process.returncode == 0, "a leak, or a sanitizer's report"


class Noise:
    """A model of random outputs in which instances come, go, weaken and look alike.

    In a plain one everything is a small whole number: kernels are equal, opposite or zero, scores
    and masks equal.
    """

    def __init__(
        self, seed: int, queries: int, classes: int, width: int, size: tuple[int, int], plain: bool
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._directions = self._rng.normal(size=(queries + 2, width))
        self._n, self._c, self._d, self._size = queries, classes, width, size
        self._plain = plain
        self.sizes = (queries, classes, width, *size)

    def frame(self) -> Mapping[str, np.ndarray]:
        rng, n = self._rng, self._n
        which = rng.integers(0, len(self._directions), n)
        outputs = {
            "class_logits": rng.normal(size=(1, n, self._c)) * 2,
            "objectness_logits": rng.normal(size=(1, n, 1)) * 2 + 1,
            "kernels": self._directions[which][None] + rng.normal(size=(1, n, self._d)) * 0.3,
        }
        if self._plain:
            outputs = {name: rng.integers(-1, 2, v.shape) for name, v in outputs.items()}
        return {name: v.astype(np.float32) for name, v in outputs.items()} | {
            "mask_logits": self._masks(n)
        }

    def mask_head(self, kernels: np.ndarray) -> np.ndarray:
        return self._masks(kernels.shape[1])

    def _masks(self, count: int) -> np.ndarray:
        rng, (h, w) = self._rng, self._size
        masks = rng.normal(size=(1, count, h, w)) - rng.uniform(-1, 3, (1, count, 1, 1))
        if self._plain:
            masks = rng.choice([-2, 1, 3], masks.shape, p=[0.8, 0.1, 0.1])
        return masks.astype(np.float32)


@dataclass(frozen=True)
class Clip:
    """A drawn clip; see :class:`Noise`. Sizes are N, C, D and those of the mask logits."""

    seed: int
    sizes: tuple[int, int, int, int, int]
    clip_length: int = 1
    picture: tuple[int, int] | None = None
    settings: TrackSettings = field(default_factory=TrackSettings)
    auto: tuple[float, float] | None = None
    plain: bool = False


FRAME_OUTPUTS = ("class_logits", "objectness_logits", "kernels", "mask_logits")


FRAMES = 7


def opening(clip: Clip, frames: int, logits: tuple[int, int]) -> bytes:
    """The line that begins a clip for ``track_check``."""
    s = clip.settings
    geometry = clip.picture and geometry_of(clip.picture, (8 * logits[0], 8 * logits[1]))
    places = (*geometry.original, *geometry.content) if geometry else (0, 0, 0, 0)
    line = ("clip", *clip.sizes[:3], *logits, *places, clip.clip_length)
    line += (s.score, s.keep, s.similarity, s.duplicate_iou, s.overlap, s.memory, s.remembered)
    line += (int(clip.auto is not None), *(clip.auto or (0, 0)), frames)
    return " ".join(map(str, line)).encode() + b"\n"


def packed(arrays: Iterator[np.ndarray]) -> bytes:
    return b"".join(a.astype("<f4").tobytes() for a in arrays)


def follow_both(
    checker: Checker, clip: Clip, *, frame: Callable[[], Mapping[str, np.ndarray]] | None = None
) -> None:
    """Follow a clip with the specification and the library and compare frame by frame.

    ``frame`` replaces what the frame graph gives.
    """
    n, c, d, h, w = clip.sizes
    schedule = Every(clip.clip_length) if clip.auto is None else Auto(clip.clip_length, *clip.auto)
    if clip.auto is not None:
        h, w = 4 * h, 4 * w
    images = Scenes(clip.seed, (8 * h, 8 * w))
    geometry = geometry_of(clip.picture, (8 * h, 8 * w)) if clip.picture else None
    model = Recorded(Noise(clip.seed, n, c, d, (h, w), clip.plain), frame)
    tracker = Tracker(model, schedule, clip.settings)
    with checker.conversation():
        checker.send(opening(clip, FRAMES, (h, w)))
        for _ in range(FRAMES):
            picture = images.next()
            want = tracker.step(picture.transpose(2, 0, 1)[None].astype(np.float32))
            if clip.auto is not None:
                checker.send(picture.tobytes())
            asked = checker.hear().split()
            if want.keyframe:
                assert asked == ["keyframe"]
                checker.send(packed(model.last[k] for k in FRAME_OUTPUTS))
            else:
                assert asked[:2] == ["reuse", str(len(want.ids))]
                if len(want.ids):
                    kernels = np.array(asked[2:], np.float32)
                    np.testing.assert_array_equal(kernels, model.last["kernels"].ravel())
                checker.send(packed([want.mask_logits]))
            status, *found = checker.hear().split("\t")
            assert status == f"0 {want.since}"
            masks = unfit_masks(want.mask_logits, geometry) if geometry else want.mask_logits > 0
            assert len(found) == len(want.ids)
            for i, text in enumerate(found):
                identity, kind, score, height, width, counts = text.split(" ")
                assert (int(identity), int(kind)) == (want.ids[i], want.classes[i])
                assert float(score) == pytest.approx(want.scores[i], rel=1e-5)
                assert {"size": [int(height), int(width)], "counts": counts} == encode(masks[i])


class Scenes:
    """Pictures that stay, change a little, or are cut."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self._rng = np.random.default_rng(seed + 1)
        self._picture = np.zeros((*size, 3), np.uint8)

    def next(self) -> np.ndarray:
        most = self._rng.choice([1, 6, 256])
        noise = self._rng.integers(0, most, self._picture.shape, np.uint8)
        self._picture = self._picture + noise
        return self._picture


class Recorded:
    """A runtime whose graphs are a :class:`Noise`; it remembers what went in and out last."""

    name = runtime = "noise"
    emulated = False

    def __init__(
        self, model: Noise, frame: Callable[[], Mapping[str, np.ndarray]] | None = None
    ) -> None:
        self._model = model
        self._frame = frame
        self.last: dict[str, np.ndarray] = {}
        n, c, d, *size = model.sizes
        image = TensorSpec("image", "float32", (1, 3, "h", "w"))
        frame_outputs = {
            "class_logits": (1, n, c), "objectness_logits": (1, n, 1), "kernels": (1, n, d),
            "mask_logits": (1, n, *size),
        }  # fmt: skip
        self.specs: dict[Role, GraphSpec] = {
            "frame": GraphSpec(
                "frame",
                (image,),
                tuple(TensorSpec(name, "float32", s) for name, s in frame_outputs.items()),
            ),
            "mask_head": GraphSpec(
                "mask_head",
                (image, TensorSpec("kernels", "float32", (1, "n", d))),
                (TensorSpec("mask_logits", "float32", (1, "n", *size)),),
            ),
        }

    def outputs(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        (call,) = calls
        if call.role == "frame":
            self.last = dict(self._frame() if self._frame else self._model.frame())
            return [self.last]
        kernels = call.inputs["kernels"]
        self.last = {"kernels": kernels}
        return [{"mask_logits": self._model.mask_head(kernels)}]
