"""The tracker's C++ library, natively, under sanitizers.

``core/tracker.py`` and ``core/schedule.py`` are the specification; identities, classes, masks and
keyframes must be their own. ``follow_clips.py`` beside this is the long round.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import native
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from scipy.optimize import linear_sum_assignment

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


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    process = Checker()
    yield process
    process.close()


def test_a_checker_that_fell_out_of_step_starts_anew(checker: Checker):
    def fail_half_way() -> None:
        with checker.conversation():
            checker.send(b"assign 1 1 0\nassign 1 2 0 1\n")
            assert checker.hear() == "1 "

    with pytest.raises(AssertionError):
        fail_half_way()
    assert checker.say("assign 1 2 1 0") == "1 "


class TestAssignment:
    @given(st.integers(0, 2**32), st.integers(1, 9), st.integers(0, 9), st.integers(1, 1000))
    @FAST
    def test_is_scipys_own_ties_included(
        self, checker: Checker, seed: int, rows: int, more: int, values: int
    ):
        cost = np.random.default_rng(seed).integers(0, values, (rows, rows + more))
        got = checker.say(f"assign {rows} {rows + more} {' '.join(map(str, cost.ravel()))}")
        assert got.split() == [str(column) for column in linear_sum_assignment(cost)[1]]

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308"])
    def test_ends_whatever_the_costs_are(self, checker: Checker, value: str):
        checker.say("assign 3 4 " + " ".join([value] * 12))
        checker.say("assign 2 2 0 " + " ".join([value] * 3))


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


clips = st.builds(
    Clip,
    seed=st.integers(0, 2**32),
    sizes=st.tuples(*(st.integers(1, 7) for _ in range(5))),
    clip_length=st.integers(1, 4),
    picture=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
    settings=st.builds(
        TrackSettings,
        score=st.sampled_from([0.0, 0.3, 0.5]),
        keep=st.sampled_from([0.0, 0.5, 1.0]),
        similarity=st.sampled_from([-1.0, 0.0, 0.2, 0.7]),
        memory=st.integers(0, 3),
        duplicate_iou=st.sampled_from([0.1, 0.6, 1.0]),
        remembered=st.sampled_from([1, 2, 10]),
        overlap=st.sampled_from([0.0, 0.6, 2.0]),
    ),
    auto=st.none() | st.tuples(st.sampled_from([0.0, 3.0, 60.0]), st.sampled_from([0.0, 0.9, 1.0])),
    plain=st.booleans(),
)
EVERYTHING = TrackSettings(0.0, 0.0, -1.0, 0, 1.0)


@given(clips)
@example(Clip(0, (7, 2, 3, 4, 5), settings=EVERYTHING))
@example(Clip(1, (7, 2, 3, 1, 2), 4, settings=EVERYTHING, auto=(3.0, 0.9)))
@example(Clip(12186, (7, 2, 1, 4, 4), 1, None, TrackSettings(0.5, 0.0, 0.2, 0, 0.6), (60.0, 1.0)))
@FAST
def test_the_library_follows_any_clip_as_the_specification_does(checker: Checker, clip: Clip):
    follow_both(checker, clip)


class TestRareClips:
    """What random numbers hardly ever make, and people do."""

    @pytest.mark.parametrize("similarity", [-1.0, 0.0, 0.5])
    @pytest.mark.parametrize("width", [1, 2, 3, 9])
    def test_equal_opposite_and_zero_kernels(self, checker: Checker, width: int, similarity: float):
        for seed in range(10):
            settings = TrackSettings(0.0, 0.0, similarity, 3, 1.0)
            follow_both(checker, Clip(seed, (7, 2, width, 3, 4), settings=settings, plain=True))

    @pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
    def test_equal_scores_and_scores_at_the_threshold(self, checker: Checker, score: float):
        for seed in range(10):
            settings = TrackSettings(score, 1.0, 0.5, 3, 0.5)
            follow_both(checker, Clip(seed, (7, 1, 3, 3, 4), settings=settings, plain=True))

    def test_scores_that_saturate(self, checker: Checker):
        """From a logit of 17 up, a float32 score is 1 or the last number before it."""
        for seed in range(20):
            rng = np.random.default_rng(seed)
            kernels = rng.normal(size=(1, 6, 4)).astype(np.float32)
            outputs = {
                "class_logits": rng.uniform(14, 40, (1, 6, 2)).astype(np.float32),
                "objectness_logits": rng.uniform(14, 40, (1, 6, 1)).astype(np.float32),
                "kernels": kernels,
                "mask_logits": np.ones((1, 6, 2, 2), np.float32),
            }
            follow_both(checker, Clip(seed, (6, 2, 4, 2, 2)), frame=lambda o=outputs: o)

    @pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-12, 1e19, 1e29])
    def test_kernels_of_any_length(self, checker: Checker, size: float):
        outputs = Noise(3, 6, 2, 4, (2, 3), plain=False).frame()
        scaled = outputs | {"kernels": (outputs["kernels"] * size).astype(np.float32)}
        follow_both(checker, Clip(0, (6, 2, 4, 2, 3), settings=EVERYTHING), frame=lambda: scaled)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.1e30, -3e38])
    @pytest.mark.parametrize(
        "name", ["class_logits", "objectness_logits", "kernels", "mask_logits"]
    )
    def test_a_frame_with_values_that_no_network_gives_is_not_taken(
        self, checker: Checker, name: str, value: float
    ):
        clip = Clip(0, (2, 2, 2, 1, 1))
        outputs = dict(Noise(0, 2, 2, 2, (1, 1), plain=True).frame())
        outputs[name] = np.full_like(outputs[name], value)
        with checker.conversation():
            checker.send(opening(clip, 1, (1, 1)))
            assert checker.hear() == "keyframe"
            checker.send(packed(outputs[k] for k in FRAME_OUTPUTS))
            assert checker.hear() == f"{NOT_FINITE} -1"


FRAME_OUTPUTS = ("class_logits", "objectness_logits", "kernels", "mask_logits")
NOT_FINITE, BAD_STATE = 3, 4
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


def test_the_example_follows_its_square():
    done = subprocess.run(
        [native.program("track_example")], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"frame {i}" for i in range(7)]
    assert all("#1 class 1 0.99" in line for line in lines)
    assert len({line.split()[-1] for line in lines}) == 7, "the square moves"


class TestState:
    """A state comes from a file: whatever it holds, it is loaded whole or refused."""

    @given(st.data())
    @settings(FAST, max_examples=150)
    def test_no_bytes_harm_the_tracker(self, checker: Checker, data: st.DataObject):
        fed, _, text = checker.say("state").split()
        sound = bytearray.fromhex(text)
        assert fed == "4", "no bytes are no state"
        for place in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=4)):
            sound[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, 8))
        spoilt = bytes(sound[: len(sound) - cut]) + data.draw(st.binary(max_size=4))
        status, after = checker.say(f"state {spoilt.hex()}").split()[:2]
        assert status in ("0", "4")
        assert after == "0", "the tracker goes on either way"
        if len(spoilt) != len(sound):
            assert status == "4"

    def test_a_sound_one_is_loaded(self, checker: Checker):
        assert checker.say(f"state {State().packed().hex()}") == "0 0"

    @pytest.mark.parametrize("kernel", [(1.0, 0.0), (0.6, -0.8), (0.0, 0.0)])
    def test_directions_of_length_one_or_zero_are_believed(
        self, checker: Checker, kernel: tuple[float, float]
    ):
        assert checker.say(f"state {State(kernel=kernel).packed().hex()}") == "0 0"

    @pytest.mark.parametrize(
        "change",
        [
            {"kernel": (3.4e38, -3.4e38)},
            {"kernel": (2.0, 0.0)},
            {"kernel": (0.5, 0.5)},
            {"kernel": (np.nan, 0.0)},
            {"kernel": (1e-20, 0.0)},
            {"logits": (3e38, 0.0)},
            {"logits": (-np.inf, 0.0)},
            {"objectness": 1e300},
            {"objectness": np.nan},
            {"live_kernel": (2e30, 0.0)},
            {"live_kernel": (np.inf, 0.0)},
            {"place": 2**63},
            {"ids": (2, 2)},
            {"ids": (0, 1)},
            {"ids": (1, 3)},
            {"keyframes": 0},
            {"keyframes": 2**60},
            {"missed": (1, 1)},
            {"missed": (0, -1)},
            {"missed": (0, 2**60)},
            {"born": -1},
            {"born": 2**62},
            {"since": -1},
            {"since": 2**62},
            {"counts": (3, 1)},
            {"counts": (2**63, 2**63)},
            {"counts": (1, 2**63)},
            {"counts": (1, 2**40)},
            {"sizes": (3, 2)},
            {"cell": -1},
            {"cell": 2**31 - 1},
            {"sure": 1.5},
            {"sure": np.nan},
        ],
        ids=lambda change: "-".join(f"{k}={v}" for k, v in change.items()),
    )
    def test_an_impossible_one_is_refused(self, checker: Checker, change: dict[str, object]):
        spoilt = State(**change).packed()
        assert checker.say(f"state {spoilt.hex()}") == f"{BAD_STATE} 0"


@dataclass(frozen=True)
class State:
    """A state of the tracker that ``track_check state`` has: C = D = 2, one live and one hidden."""

    counts: tuple[int, int] = (1, 1)
    sizes: tuple[int, int] = (2, 2)
    born: int = 2
    since: int = 0
    cell: int = 9
    sure: float = 0.5
    ids: tuple[int, int] = (1, 2)
    keyframes: int = 1
    missed: tuple[int, int] = (0, 1)
    objectness: float = 0.5
    kernel: tuple[float, float] = (1.0, 0.0)
    logits: tuple[float, float] = (1.0, -1.0)
    live_kernel: tuple[float, float] = (5.0, 0.0)
    place: int = 0b1

    def packed(self) -> bytes:
        head = struct.pack(
            "<8s4Q2qQi2d",
            b"MITRACK3",
            *self.sizes,
            *self.counts,
            self.born,
            self.since,
            1,
            self.cell,
            self.sure,
            self.sure,
        )
        tracks = (
            struct.pack(
                "<3qd4f", i, self.keyframes, missed, self.objectness, *self.kernel, *self.logits
            )
            for i, missed in zip(self.ids, self.missed, strict=True)
        )
        live = struct.pack("<2fQ", *self.live_kernel, self.place)
        return head + b"".join(tracks) + live
