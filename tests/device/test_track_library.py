"""The tracker's C++ library, natively, under sanitizers.

``core/tracker.py`` and ``core/schedule.py`` are the specification; identities, classes, masks and
keyframes must be their own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping

import native
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from scipy.optimize import linear_sum_assignment

from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.core.schedule import Auto, Every
from mobileinst_deploy.core.tracker import Tracker, TrackSettings
from mobileinst_deploy.media.letterbox import geometry_of, unfit_masks

FAST = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


class Checker:
    """``track_check`` as a process that answers clip after clip."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [native.program("track_check")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def say(self, line: str) -> str:
        self.send(f"{line}\n".encode())
        return self.hear()

    def send(self, data: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout
        answer = self._process.stdout.readline().decode()
        assert answer.endswith("\n"), "the tracker died"
        return answer.rstrip("\n")

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0, "a leak, or a sanitizer's report"


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    process = Checker()
    yield process
    process.close()


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(0, 9), st.booleans())
@FAST
def test_the_assignment_costs_what_scipys_does(
    checker: Checker, seed: int, rows: int, more: int, ties: bool
):
    rng = np.random.default_rng(seed)
    shape = (rows, rows + more)
    cost = rng.integers(-3, 4, shape).astype(float) if ties else rng.normal(size=shape)
    text = " ".join(repr(float(v)) for v in cost.ravel())
    got = np.array(checker.say(f"assign {rows} {shape[1]} {text}").split(), int)
    want = linear_sum_assignment(cost)[1]
    assert len(set(got)) == rows
    assert cost[range(rows), got].sum() == pytest.approx(cost[range(rows), want].sum())
    if not ties:
        assert got.tolist() == want.tolist()


class Noise:
    """A model of random outputs in which instances come, go, weaken and look alike."""

    def __init__(self, seed: int, queries: int, classes: int, width: int, size: tuple[int, int]):
        self._rng = np.random.default_rng(seed)
        self._directions = self._rng.normal(size=(queries + 2, width))
        self._n, self._c, self._size = queries, classes, size

    def frame(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        rng, n = self._rng, self._n
        which = rng.integers(0, len(self._directions), n)
        kernels = self._directions[which] + rng.normal(size=(n, self._directions.shape[1])) * 0.3
        return {
            "class_logits": rng.normal(size=(1, n, self._c)).astype(np.float32) * 2,
            "objectness_logits": rng.normal(size=(1, n, 1)).astype(np.float32) * 2 + 1,
            "kernels": kernels[None].astype(np.float32),
            "mask_logits": self._masks(n),
        }

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        return self._masks(kernels.shape[1])

    def _masks(self, count: int) -> np.ndarray:
        rng, (h, w) = self._rng, self._size
        masks = rng.normal(size=(1, count, h, w)) - rng.uniform(-1, 3, (1, count, 1, 1))
        return masks.astype(np.float32)


@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(*(st.integers(1, 7) for _ in range(5))),
    clip_length=st.integers(1, 4),
    picture=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
    knobs=st.tuples(
        st.sampled_from([0.0, 0.3, 0.5]),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from([-1.0, 0.2, 0.7]),
        st.integers(0, 3),
        st.sampled_from([0.1, 0.6, 1.0]),
    ),
    auto=st.none() | st.tuples(st.sampled_from([0.0, 3.0, 60.0]), st.sampled_from([0.0, 0.9, 1.0])),
)
@example(0, (7, 2, 3, 4, 5), 1, None, (0.0, 0.0, -1.0, 0, 1.0), None)
@example(1, (7, 2, 3, 1, 2), 4, None, (0.0, 0.0, -1.0, 0, 1.0), (3.0, 0.9))
@FAST
def test_the_library_follows_any_clip_as_the_specification_does(
    checker: Checker,
    seed: int,
    sizes: tuple[int, ...],
    clip_length: int,
    picture: tuple[int, int] | None,
    knobs: tuple[float, float, float, int, float],
    auto: tuple[float, float] | None,
):
    n, c, d, h, w = sizes
    schedule = Every(clip_length) if auto is None else Auto(clip_length, *auto)
    if auto is not None:
        h, w = 4 * h, 4 * w
    settings = TrackSettings(*knobs)
    images = Scenes(seed, (8 * h, 8 * w))
    geometry = geometry_of(picture, (8 * h, 8 * w)) if picture else None
    places = (*geometry.original, *geometry.content) if geometry else (0, 0, 0, 0)
    frames = 7
    model = Recorded(Noise(seed, n, c, d, (h, w)))
    tracker = Tracker(model, schedule, settings)
    numbers = (settings.score, settings.keep, settings.similarity, settings.duplicate_iou)
    line = ("clip", n, c, d, h, w, *places, clip_length, *numbers, settings.memory)
    line += (int(auto is not None), *(auto or (0, 0)), frames)
    checker.send(" ".join(map(str, line)).encode() + b"\n")
    for _ in range(frames):
        picture = images.next()
        want = tracker.step(picture.transpose(2, 0, 1)[None].astype(np.float32))
        if auto is not None:
            checker.send(picture.tobytes())
        asked = checker.hear().split()
        if want.keyframe:
            assert asked == ["keyframe"]
            sent = [
                model.last[k]
                for k in ("class_logits", "objectness_logits", "kernels", "mask_logits")
            ]
        else:
            assert asked[:2] == ["reuse", str(len(want.ids))]
            if len(want.ids):
                kernels = np.array(asked[2:], np.float32)
                np.testing.assert_array_equal(kernels, model.last["kernels"].ravel())
            sent = [want.mask_logits]
        checker.send(b"".join(a.astype("<f4").tobytes() for a in sent))
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
    """A model that remembers what went in and out last."""

    def __init__(self, model: Noise) -> None:
        self._model = model
        self.last: dict[str, np.ndarray] = {}

    def frame(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        self.last = dict(self._model.frame(image))
        return self.last

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        self.last = {"kernels": kernels}
        return self._model.mask_head(image, kernels)


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
        text = checker.say("state").split()[2]
        assert checker.say(f"state {text}") == "0 0"
