"""The sequence gate: it passes for the same network, and says where another one goes wrong."""

from __future__ import annotations

import numpy as np
import pytest
from colour_model import ColourRunner, image

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.schedule import Auto, Every
from mobileinst_deploy.core.tracker import TrackSettings, track_clip
from mobileinst_deploy.pair.clip_gate import verify_clip

#: Two patches, and a cut: each side's schedule must see it, or one of them gets no keyframe there.
CLIP = [image(red=(8, 8 * i), green=(40, 64)) for i in range(4)] + [255 - image(blue=(8, 8))] * 3


class Worn(ColourRunner):
    """Its mask head loses what the keyframe found: an error that no single graph call shows."""

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> dict[str, np.ndarray]:
        outputs = super().mask_head(image, kernels)
        return {"mask_logits": outputs["mask_logits"] - 20}


class Swapped(ColourRunner):
    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = super().frame(image)
        return {**outputs, "mask_logits": outputs["mask_logits"][:, ::-1]}


def gate(candidate, schedule=None, clip=CLIP, **more):
    return verify_clip(
        ColourRunner(),
        candidate,
        lambda: iter(clip),
        schedule or Every(3),
        TrackSettings(),
        Tolerance(),
        **more,
    )


@pytest.mark.parametrize("schedule", [Every(1), Every(3), Auto()], ids=["1", "3", "auto"])
def test_the_same_network_passes(schedule):
    check = gate(ColourRunner(), schedule)
    assert check.passed, check.detail
    assert check.figures["frames"] == len(CLIP)
    assert check.figures["identity_switches"] == 0
    # After the cut there is nothing, but T = 3 goes on with the two kernels for two more frames.
    assert check.figures["masks"] == (12 if schedule.name == "3" else 8)
    assert check.figures["min_mask_iou"] == 1


def test_a_clip_with_nothing_in_it_says_that_nothing_was_compared():
    check = gate(ColourRunner(), clip=[image()] * 3)
    assert check.passed
    assert check.detail == (
        "3 frames, no instance in any of them on either side: no mask was compared"
    )


@pytest.mark.parametrize(
    ("candidate", "frame", "place"),
    [(Swapped(), 0, "frame graph"), (Worn(), 1, "mask-head graph")],
    ids=["keyframe", "reuse frame"],
)
def test_another_network_fails_with_the_frame_and_the_place(candidate, frame, place):
    check = gate(candidate)
    assert not check.passed
    assert check.detail.startswith(f"frame {frame}, {frame} after its keyframe")
    assert check.detail.endswith(f"the difference is in the {place}")


def test_a_side_that_follows_the_clip_by_itself_is_asked_once():
    asked = []

    def follow(images):
        asked.append(1)
        return track_clip(ColourRunner(), list(images), Every(3), TrackSettings())

    assert gate(Worn(), follow=follow).passed, "what follows is judged, not the candidate's graphs"
    assert asked == [1]
