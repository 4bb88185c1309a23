"""The runner's mode track, natively, under sanitizers: its tracks and keyframes are the host's."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import native
import numpy as np
import pytest
import tiny_pair

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.contract import Call, Role, graph_specs
from mobileinst_deploy.core.errors import ConfigError, DeviceError
from mobileinst_deploy.core.masks import decode, encode
from mobileinst_deploy.core.schedule import Auto, Every
from mobileinst_deploy.core.tracker import TrackedFrame, Tracker, TrackSettings, settings_of
from mobileinst_deploy.media.letterbox import Geometry, fit, unfit_masks
from mobileinst_deploy.phone.plan import OUTPUT_FOLDER
from mobileinst_deploy.phone.result import read_tensors
from mobileinst_deploy.phone.track_plan import DeviceFrame, TrackPlan, read_frames
from mobileinst_deploy.runtimes.onnxruntime import open_session

EVERYTHING = TrackSettings(score=0.0, duplicate_iou=1.0)


class HostRunner:
    """The pair by ONNX Runtime's Python binding."""

    name, runtime, emulated = "host", "onnxruntime", False

    def __init__(self, graphs: dict[Role, Path], config: ModelConfig) -> None:
        self.specs = graph_specs(config)
        self._sessions = {role: open_session(path.read_bytes()) for role, path in graphs.items()}

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
    graphs: dict[Role, Path],
    pictures: list[np.ndarray],
    schedule: Every | Auto,
    settings: TrackSettings,
    config: ModelConfig = tiny_pair.CONFIG,
) -> list[TrackedFrame]:
    tracker = Tracker(HostRunner(graphs, config), schedule, settings)
    return [
        tracker.step(np.ascontiguousarray(p.transpose(2, 0, 1)[None], np.float32)) for p in pictures
    ]


def plan_of(
    pictures: list[np.ndarray], geometry: Geometry, schedule: Every | Auto | None = None, **more
) -> TrackPlan:
    settings = more.pop("settings", EVERYTHING)
    return TrackPlan(
        "track",
        (),
        specs=more.pop("specs", tiny_pair.SPECS),
        pictures=pictures,
        geometry=geometry,
        schedule=schedule or Every(3),
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
            EVERYTHING,
            TrackSettings(score=0.4, similarity=0.9, memory=0, duplicate_iou=0.9),
            TrackSettings(score=1.0),
            settings_of("consecutive", 0.0),
        ],
        ids=["everything", "some", "nothing", "the paper's"],
    )
    def test_its_tracks_are_the_hosts(
        self, tmp_path: Path, clip_length: int, settings: TrackSettings
    ):
        graphs = tiny_pair.build(tmp_path)
        pictures, geometry = clip(8)
        plan = plan_of(pictures, geometry, Every(clip_length), settings=settings)
        got, state = follow(tmp_path / "run", plan, graphs)
        want = on_the_host(graphs, pictures, Every(clip_length), settings)
        assert_same(got, want, geometry)
        assert state
        assert any(len(f.ids) > 0 for f in want) == (settings.score < 1)
        assert all(len(f.ms) == 5 and min(f.ms) >= 0 for f in got)

    def test_a_clip_in_pieces_is_followed_as_in_one(self, tmp_path: Path):
        graphs = tiny_pair.build(tmp_path)
        pictures, geometry = clip(8)
        first, state = follow(tmp_path / "a", plan_of(pictures[:4], geometry), graphs)
        rest, _ = follow(tmp_path / "b", plan_of(pictures[4:], geometry, state=state), graphs)
        want = on_the_host(graphs, pictures, Every(3), EVERYTHING)
        assert_same([*first, *rest], want, geometry)
        assert rest[0].since == 1, "the second piece goes on in the middle of a clip of three"

    @pytest.mark.parametrize("cut", [None, 4], ids=["whole", "in the middle of a clip of three"])
    def test_context_goes_to_the_reuse_frames_with_the_kernels(
        self, tmp_path: Path, cut: int | None
    ):
        config = tiny_pair.REUSING
        graphs = tiny_pair.build(tmp_path, config=config)
        pictures, geometry = clip(8)
        specs = graph_specs(config)
        got, state = follow(tmp_path / "a", plan_of(pictures[:cut], geometry, specs=specs), graphs)
        if cut:
            plan = plan_of(pictures[cut:], geometry, specs=specs, state=state)
            got += follow(tmp_path / "b", plan, graphs)[0]
        assert_same(got, on_the_host(graphs, pictures, Every(3), EVERYTHING, config), geometry)
        plain = on_the_host(tiny_pair.build(tmp_path), pictures, Every(3), EVERYTHING)
        with pytest.raises(AssertionError):
            assert_same(got, plain, geometry)

    def test_a_state_without_the_context_is_refused(self, tmp_path: Path):
        specs = graph_specs(tiny_pair.REUSING)
        graphs = tiny_pair.build(tmp_path, config=tiny_pair.REUSING)
        pictures, geometry = clip(4)
        _, state = follow(tmp_path / "a", plan_of(pictures, geometry, specs=specs), graphs)
        bytes_of_context = 2 * 4 * 4 * 4 * 4
        for name, wrong in (("b", state[:-bytes_of_context]), ("c", state[:100])):
            with pytest.raises(DeviceError, match="state"):
                follow(
                    tmp_path / name, plan_of(pictures, geometry, specs=specs, state=wrong), graphs
                )

    @pytest.mark.parametrize(
        ("planned", "built"),
        [
            (tiny_pair.CONFIG, tiny_pair.REUSING),
            (tiny_pair.REUSING, tiny_pair.CONFIG),
            (replace(tiny_pair.REUSING, input_size=(64, 128)), tiny_pair.REUSING),
        ],
        ids=["context unknown to the plan", "unknown to the pair", "of another frame size"],
    )
    def test_context_that_the_pair_does_not_take_is_refused_in_a_sentence(
        self, tmp_path: Path, planned: ModelConfig, built: ModelConfig
    ):
        graphs = tiny_pair.build(tmp_path, config=built)
        pictures, geometry = clip(4)
        with pytest.raises(DeviceError) as refused:
            follow(tmp_path / "a", plan_of(pictures, geometry, specs=graph_specs(planned)), graphs)
        assert refused.value.cause
        assert "\n" not in refused.value.cause.strip()

    @pytest.mark.parametrize(
        ("sees", "keyframes"),
        [
            (Auto(100, 255.0, 0.0), [0]),
            (Auto(100, 2.0, 0.0), [0, 5]),
            (Auto(100, 255.0, 1.0), None),
            (Auto(), None),
            (Auto(2), [0, 2, 4, 6]),
        ],
        ids=["never", "pictures", "masks", "both", "longest"],
    )
    def test_the_scene_asks_for_the_keyframes_that_it_asks_the_host_for(
        self, tmp_path: Path, sees: Auto, keyframes: list[int] | None
    ):
        graphs = tiny_pair.build(tmp_path)
        pictures, geometry = clip(8)
        want = on_the_host(graphs, pictures, deepcopy(sees), EVERYTHING)
        whole, _ = follow(tmp_path / "a", plan_of(pictures, geometry, sees), graphs)
        assert_same(whole, want, geometry)
        found = [i for i, frame in enumerate(whole) if frame.since == 0]
        assert keyframes is None or found == keyframes
        # In pieces too: what the schedule remembers goes from start to start.
        parts, state = [], b""
        for k in (0, 2, 5):
            piece = plan_of(pictures[k : {0: 2, 2: 5}.get(k)], geometry, sees, state=state)
            frames, state = follow(tmp_path / f"b{k}", piece, graphs)
            parts += frames
        assert_same(parts, want, geometry)

    def test_mask_logits_come_back_where_they_are_wanted(self, tmp_path: Path):
        graphs = tiny_pair.build(tmp_path)
        pictures, geometry = clip(4)
        got, _ = follow(tmp_path / "a", plan_of(pictures, geometry, logits=True), graphs)
        for device, host in zip(
            got, on_the_host(graphs, pictures, Every(3), EVERYTHING), strict=True
        ):
            np.testing.assert_allclose(device.mask_logits, host.mask_logits, atol=1e-5)
        plain, _ = follow(tmp_path / "b", plan_of(pictures, geometry), graphs)
        assert all(frame.mask_logits is None for frame in plain)

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
            ("automatic\t16.0", "automatic\t256", "'256' is not a number from 0 to 255"),
            ("automatic\t16.0\t0.9", "automatic\t16.0\t1.1", "'1.1' is not a number from 0"),
            ("mode\ttrack", "mode\tbench", "the mode track alone takes a line 'model'"),
            ("\t48\t64\n", "\t48\t65\n", "the tracker refuses the plan's numbers"),
        ],
    )
    def test_a_wrong_plan_is_refused(self, tmp_path: Path, old: str, new: str, says: str):
        def edit(text: str) -> str:
            assert old in text
            return text.replace(old, new)

        done = native.start(tmp_path, plan_of(*clip(4), Auto(3)), edit=edit)
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
            ("mask_logits", np.ones(64, np.float32)),
            ("more", np.ones(1, np.float32)),
        ],
    )
    def test_an_impossible_answer_is_refused(self, name: str, value: np.ndarray):
        with pytest.raises(DeviceError, match="tracks from the device are not understood"):
            read_frames(self.GOOD() | {name: value}, plan_of(*clip(2)))

    @pytest.mark.parametrize("logits", [np.ones(63, np.float32), np.full(64, np.inf, np.float32)])
    def test_impossible_mask_logits_are_refused(self, logits: np.ndarray):
        plan = plan_of(*clip(2), logits=True)
        sound, _ = read_frames(self.GOOD() | {"mask_logits": np.ones(64, np.float32)}, plan)
        assert [f.mask_logits.shape for f in sound] == [(1, 8, 8), (0, 8, 8)]
        with pytest.raises(DeviceError, match="tracks from the device are not understood"):
            read_frames(self.GOOD() | {"mask_logits": logits}, plan)

    def test_pictures_of_another_size_are_not_sent(self):
        pictures, geometry = clip(2)
        with pytest.raises(ConfigError, match="not uint8 pictures of 64x64"):
            replace(plan_of(pictures, geometry), pictures=[pictures[0][:32]])
