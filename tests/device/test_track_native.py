"""Tracking on the device: the C++ library and the runner's mode track, natively, under sanitizers.

``mobileinst_deploy/track.py`` is the specification; identities, classes and masks must be its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import native
import numpy as np
import pytest
import tiny_pair
from hypothesis import HealthCheck, example, given, settings, strategies as st
from scipy.optimize import linear_sum_assignment

from mobileinst_deploy.device.plan import OUTPUT_FOLDER
from mobileinst_deploy.device.runner import read_tensors
from mobileinst_deploy.device.track_plan import DeviceFrame, TrackPlan, read_frames
from mobileinst_deploy.errors import ConfigError, DeviceError
from mobileinst_deploy.geometry import Geometry, fit, geometry_of, unfit_masks
from mobileinst_deploy.masks import decode, encode
from mobileinst_deploy.ort import open_session
from mobileinst_deploy.schedule import Every
from mobileinst_deploy.specs import Call, Role
from mobileinst_deploy.track import RunnerModel, TrackedFrame, Tracker, TrackSettings

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
)
@example(0, (7, 2, 3, 4, 5), 1, None, (0.0, 0.0, -1.0, 0, 1.0))
@FAST
def test_the_library_follows_any_clip_as_the_specification_does(
    checker: Checker,
    seed: int,
    sizes: tuple[int, ...],
    clip_length: int,
    picture: tuple[int, int] | None,
    knobs: tuple[float, float, float, int, float],
):
    n, c, d, h, w = sizes
    settings = TrackSettings(*knobs)
    image = np.zeros((1, 3, 8 * h, 8 * w), np.float32)
    geometry = geometry_of(picture, (8 * h, 8 * w)) if picture else None
    places = (*geometry.original, *geometry.content) if geometry else (0, 0, 0, 0)
    frames = 7
    model = Recorded(Noise(seed, n, c, d, (h, w)))
    tracker = Tracker(model, Every(clip_length), settings)
    numbers = (settings.score, settings.keep, settings.similarity, settings.duplicate_iou)
    checker.send(
        " ".join(
            map(str, ("clip", *sizes, *places, clip_length, *numbers, settings.memory, frames))
        ).encode()
        + b"\n"
    )
    for _ in range(frames):
        want = tracker.step(image)
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


class HostRunner:
    """The pair by ONNX Runtime's Python binding."""

    name, runtime, emulated = "host", "onnxruntime", False

    def __init__(self, graphs: dict[Role, Path]) -> None:
        self._sessions = {role: open_session(path) for role, path in graphs.items()}

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        results = []
        for call in calls:
            session = self._sessions[call.role]
            names = [o.name for o in session.get_outputs()]
            results.append(dict(zip(names, session.run(names, dict(call.inputs)), strict=True)))
        return results


def clip(frames: int, size: tuple[int, int] = (90, 120)) -> tuple[list[np.ndarray], Geometry]:
    """Noise that changes slowly, fitted to the tiny pair's input."""
    rng = np.random.default_rng(3)
    start, end = rng.integers(0, 256, (2, *size, 3))
    blended = [start + (end - start) * t // frames for t in range(frames)]
    fitted = [fit(p.astype(np.uint8), tiny_pair.CONFIG.input_size) for p in blended]
    return [picture for picture, _ in fitted], fitted[0][1]


def on_the_host(
    graphs: dict[Role, Path], pictures: list[np.ndarray], clip_length: int, settings: TrackSettings
) -> list[TrackedFrame]:
    model = RunnerModel(HostRunner(graphs), tiny_pair.SPECS)
    tracker = Tracker(model, Every(clip_length), settings)
    return [
        tracker.step(np.ascontiguousarray(p.transpose(2, 0, 1)[None], np.float32)) for p in pictures
    ]


def plan_of(
    pictures: list[np.ndarray], geometry: Geometry, clip_length: int = 3, **more
) -> TrackPlan:
    settings = more.pop("settings", TrackSettings(score=0.0, duplicate_iou=1.0))
    return TrackPlan(
        "track",
        (),
        specs=tiny_pair.SPECS,
        pictures=pictures,
        geometry=geometry,
        clip_length=clip_length,
        settings=settings,
        **more,
    )


def follow(folder: Path, plan: TrackPlan, graphs: dict[Role, Path]):
    folder.mkdir(exist_ok=True)
    done = native.start(folder, plan, graphs=graphs)
    (tensors,) = read_tensors(done.result, done.folder / OUTPUT_FOLDER)
    return read_frames(tensors, plan)


def assert_same(got: list[DeviceFrame], want: list[TrackedFrame], geometry: Geometry) -> None:
    assert len(got) == len(want)
    for device, host in zip(got, want, strict=True):
        assert device.since == host.since
        assert device.ids.tolist() == host.ids.tolist()
        assert device.classes.tolist() == host.classes.tolist()
        np.testing.assert_allclose(device.scores, host.scores, rtol=1e-5)
        for rle, mask in zip(device.masks, unfit_masks(host.mask_logits, geometry), strict=True):
            assert np.array_equal(decode(rle), mask)


class TestMode:
    @pytest.mark.parametrize("clip_length", [1, 3])
    @pytest.mark.parametrize(
        "settings",
        [
            TrackSettings(score=0.0, duplicate_iou=1.0),
            TrackSettings(score=0.4, similarity=0.9, memory=0, duplicate_iou=0.9),
            TrackSettings(score=1.0),
        ],
        ids=["everything", "some", "nothing"],
    )
    def test_its_tracks_are_the_hosts(
        self, tmp_path: Path, clip_length: int, settings: TrackSettings
    ):
        graphs = tiny_pair.build(tmp_path)
        pictures, geometry = clip(8)
        plan = plan_of(pictures, geometry, clip_length, settings=settings)
        got, state = follow(tmp_path / "run", plan, graphs)
        want = on_the_host(graphs, pictures, clip_length, settings)
        assert_same(got, want, geometry)
        assert state
        assert any(len(f.ids) > 0 for f in want) == (settings.score < 1)
        assert all(len(f.ms) == 5 and min(f.ms) >= 0 for f in got)

    def test_a_clip_in_pieces_is_followed_as_in_one(self, tmp_path: Path):
        graphs = tiny_pair.build(tmp_path)
        pictures, geometry = clip(8)
        first, state = follow(tmp_path / "a", plan_of(pictures[:4], geometry), graphs)
        rest, _ = follow(tmp_path / "b", plan_of(pictures[4:], geometry, state=state), graphs)
        settings = TrackSettings(score=0.0, duplicate_iou=1.0)
        assert_same([*first, *rest], on_the_host(graphs, pictures, 3, settings), geometry)
        assert rest[0].since == 1, "the second piece goes on in the middle of a clip of three"

    @pytest.mark.parametrize("cut", [0, 7, 60, -1])
    def test_a_damaged_state_is_refused(self, tmp_path: Path, cut: int):
        graphs = tiny_pair.build(tmp_path)
        pictures, geometry = clip(2)
        _, state = follow(tmp_path / "a", plan_of(pictures, geometry), graphs)
        damaged = state[:cut] or b"x"
        with pytest.raises(DeviceError, match="the state is damaged or of another model"):
            follow(tmp_path / "b", plan_of(pictures, geometry, state=damaged), graphs)

    def test_nan_ends_it(self, tmp_path: Path):
        graphs = tiny_pair.build(tmp_path, mask_scale=float("nan"))
        with pytest.raises(DeviceError, match="NaN or infinite"):
            follow(tmp_path / "a", plan_of(*clip(2)), graphs)

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("model\t5", "model\t6", "the plan says float32 1,6,3"),
            ("model\t5\t3\t4\t64", "model\t5\t3\t4\t63", "not a multiple of 8"),
            ("frames\tframes.rgb\t4", "frames\tframes.rgb\t5", "instead of 61440"),
            ("tracking\t3", "tracking\t0", "'0' is not a whole number"),
            ("tracking\t3\t0.0", "tracking\t3\tnan", "'nan' is not a number from 0 to 1"),
            ("picture\t90", "picture\t0", "'0' is not a whole number"),
            ("mode\ttrack", "mode\tbench", "the mode track alone takes a line 'model'"),
            ("\t48\t64\n", "\t48\t65\n", "the tracker refuses the plan's numbers"),
        ],
    )
    def test_a_wrong_plan_is_refused(self, tmp_path: Path, old: str, new: str, says: str):
        def edit(text: str) -> str:
            assert old in text
            return text.replace(old, new)

        done = native.start(tmp_path, plan_of(*clip(4)), edit=edit)
        with pytest.raises(DeviceError, match=says):
            _ = done.result

    def test_frames_that_changed_on_the_way_are_refused(self, tmp_path: Path):
        def spoil(text: str) -> str:
            path = tmp_path / "work" / "frames.rgb"
            path.write_bytes(path.read_bytes()[:-1] + b"\0")
            return text

        done = native.start(tmp_path, plan_of(*clip(2)), edit=spoil)
        with pytest.raises(DeviceError, match=r"frames\.rgb differs from its CRC"):
            _ = done.result


class TestReading:
    GOOD = staticmethod(
        lambda: {
            "since": np.zeros(2, np.int32),
            "instances": np.array([1, 0], np.int32),
            "stages": np.ones(10, np.float32),
            "ids": np.array([1]),
            "classes": np.array([2], np.int32),
            "scores": np.array([0.5], np.float32),
            "rle": np.frombuffer(encode(np.ones((90, 120), bool))["counts"].encode(), np.uint8),
            "rle_bytes": np.array([len(encode(np.ones((90, 120), bool))["counts"])], np.int32),
            "seen_ids": np.array([1]),
            "seen_classes": np.array([2], np.int32),
            "seen_scores": np.array([0.5], np.float32),
            "seen_frames": np.array([0], np.int32),
            "state": np.ones(9, np.uint8),
        }
    )

    def test_a_sound_answer_is_understood(self):
        frames, state = read_frames(self.GOOD(), plan_of(*clip(2)))
        assert [len(f.ids) for f in frames] == [1, 0]
        assert decode(frames[0].masks[0]).all()
        assert frames[0].seen[0].class_index == 2
        assert len(state) == 9

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ids", np.array([0])),
            ("ids", np.array([1], np.int32)),
            ("ids", np.array([1, 2])),
            ("classes", np.array([3], np.int32)),
            ("scores", np.array([np.nan], np.float32)),
            ("instances", np.array([1, -1], np.int32)),
            ("instances", np.array([1], np.int32)),
            ("rle", np.frombuffer(b"xx", np.uint8)),
            ("stages", np.ones(9, np.float32)),
            ("seen_frames", np.array([2], np.int32)),
            ("more", np.ones(1, np.float32)),
        ],
    )
    def test_an_impossible_answer_is_refused(self, name: str, value: np.ndarray):
        with pytest.raises(DeviceError, match="tracks from the device are not understood"):
            read_frames(self.GOOD() | {name: value}, plan_of(*clip(2)))

    def test_pictures_of_another_size_are_not_sent(self):
        pictures, geometry = clip(2)
        with pytest.raises(ConfigError, match="not uint8 pictures of 64x64"):
            replace(plan_of(pictures, geometry), pictures=[pictures[0][:32]])
