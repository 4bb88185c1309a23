"""PyTorch and ONNX Runtime follow clips alike: the same identities, the same masks."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import TINY

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.core.tracker import TrackSettings, track_clip
from mobileinst_deploy.media.letterbox import fit
from mobileinst_deploy.media.pictures import bundled_photographs, read_picture
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.network.loading import LoadedModel, build_loaded
from mobileinst_deploy.pair.drift import TrackAgreement, compare_tracks, place_failure
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.pytorch import TorchRunner

SHARED = Path(os.environ.get("MOBILEINST_SHARED", Path(__file__).parents[2].parent / "shared"))
CONFIG = replace(TINY, classes=("cat", "dog"), input_size=(128, 192), num_queries=10, pool_size=2)
#: Untrained scores are low; every query that shows anything is to be followed.
SETTINGS = TrackSettings(score=0.0)


class Sides:
    """One model as PyTorch and as its exported pair."""

    def __init__(self, folder: Path) -> None:
        source: LoadedModel = build_loaded("tiny", CONFIG, None, seed=3, tolerance=Tolerance())
        bundle = export_model(source, folder / "pair")
        self.torch = TorchRunner(source.model)
        self.onnx = CpuRunner(bundle)

    def compare(self, images: list[np.ndarray], schedule: str, other=None) -> TrackAgreement:
        reference, candidate = (
            track_clip(runner, images, parse_schedule(schedule), SETTINGS)
            for runner in (self.torch, other or self.onnx)
        )
        return compare_tracks(reference, candidate)


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> Sides:
    return Sides(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def pan() -> list[np.ndarray]:
    """A camera that turns over a photograph, with a jump to another one."""
    images = []
    for path, steps in zip(bundled_photographs(), (8, 4), strict=True):
        photograph = cv2.resize(read_picture(path), (320, 320))
        for step in range(steps):
            images.append(as_input(photograph[40:280, 6 * step : 6 * step + 240]))
    return images


def as_input(pixels: np.ndarray) -> np.ndarray:
    fitted, _ = fit(pixels, CONFIG.input_size)
    return np.ascontiguousarray(fitted.transpose(2, 0, 1)[None], np.float32)


@pytest.mark.parametrize("schedule", ["1", "3", "6", "auto"])
def test_identities_are_the_same_and_masks_agree(sides, pan, schedule):
    agreement = sides.compare(pan, schedule)
    assert agreement.same_ids
    assert agreement.switches == 0
    assert agreement.lowest_iou > 0.97
    # Not 0: there are instances, and two runtimes never agree to the last digit.
    assert all(0 < frame.max_abs < 1e-2 for frame in agreement.frames)
    assert len(agreement.frames) == 12


def test_both_graphs_and_their_hand_over_are_right(sides, pan):
    assert place_failure(sides.torch, sides.onnx, pan[0], pan[2], 0.97) is None


class Wrong:
    """The exported pair with kernels that lose a little on each call."""

    name, runtime, emulated = "wrong", "onnxruntime", False

    def __init__(self, runner: CpuRunner) -> None:
        self.runner, self.specs = runner, runner.specs

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        results = self.runner.outputs(calls)
        for result in results:
            if "kernels" in result:
                result["kernels"] = np.roll(result["kernels"], 1, axis=1)
        return results


def test_a_wrong_hand_over_is_found_although_every_graph_is_right(sides, pan):
    wrong = Wrong(sides.onnx)
    agreement = sides.compare(pan, "3", wrong)
    by_age = {drift.since: drift.lowest_iou for drift in agreement.drift}
    assert by_age[1] < 0.9
    assert place_failure(sides.torch, wrong, pan[0], pan[2], 0.97) == "hand-over"


@pytest.mark.shared_data
@pytest.mark.parametrize("clip", ["data/clips/01_dog.mp4", "data/davis/JPEGImages/dog"])
def test_real_clips_too(sides, clip):
    path = SHARED / clip
    if not path.exists():
        pytest.skip(f"{path} is not here")
    pictures = islice(open_clip(str(path)), 12)
    agreement = sides.compare([as_input(p.pixels) for p in pictures], "3")
    assert agreement.same_ids
    assert agreement.lowest_iou > 0.97
