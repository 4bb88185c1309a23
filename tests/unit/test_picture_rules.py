"""The manifest's rules alone, read by a stranger, do what the package does."""

from __future__ import annotations

import json
from math import exp, sqrt
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import CONFIG
from forgery import edit_manifest
from hypothesis import given, strategies as st

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.pair_files import MANIFEST
from mobileinst_deploy.core.picture_rules import picture_rules
from mobileinst_deploy.core.tracker import TrackSettings, class_scores
from mobileinst_deploy.media.letterbox import geometry_of, prepare, unfit_masks

RULES = json.loads(json.dumps(picture_rules(CONFIG)))
INPUT = tuple(RULES["input"]["shape"][2:])


def say(formula: str, **names) -> float:
    allowed = {"min": min, "max": max, "round": round, "sqrt": sqrt}
    return eval(formula, {"__builtins__": {}}, {**allowed, **names})  # noqa: S307


def content_of(size: tuple[int, int]) -> tuple[float, tuple[int, ...]]:
    scale = say(
        RULES["fit"]["scale"],
        input_height=INPUT[0],
        input_width=INPUT[1],
        picture_height=size[0],
        picture_width=size[1],
    )
    sides = zip(size, INPUT, strict=True)
    return scale, tuple(
        say(RULES["fit"]["content"], picture=p, input=i, scale=scale) for p, i in sides
    )


def strangers_input(picture: np.ndarray) -> np.ndarray:
    scale, content = content_of(picture.shape[:2])
    ways = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}
    way = ways[RULES["fit"]["smaller" if scale < 1 else "larger"]]
    made = np.empty((*INPUT, 3), np.uint8)
    made[:] = RULES["fit"]["padding"]
    made[: content[0], : content[1]] = cv2.resize(picture, content[::-1], interpolation=way)
    return made.transpose(2, 0, 1)[None].astype(RULES["input"]["dtype"])


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_content_is_that_of_the_rules(height, width):
    assert content_of((height, width))[1] == geometry_of((height, width), INPUT).content


@pytest.mark.parametrize("size", [(64, 128), (33, 47), (90, 360), (200, 150), (1, 1), (5, 900)])
def test_the_input_is_that_of_the_rules_byte_for_byte(size):
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    image, _ = prepare(picture, INPUT)
    assert image.tobytes() == np.ascontiguousarray(strangers_input(picture)).tobytes()


@pytest.mark.parametrize("size", [(64, 128), (33, 47), (200, 150)])
def test_masks_are_those_of_the_rules(size):
    logits = np.random.default_rng(2).normal(size=(8, 16)).astype(np.float32)
    _, content = content_of(size)
    where = [
        np.clip(
            [
                say(
                    RULES["mask"]["position"],
                    pixel=p,
                    content=content[axis],
                    picture=size[axis],
                    logits=logits.shape[axis],
                    input=INPUT[axis],
                )
                for p in range(size[axis])
            ],
            0,
            logits.shape[axis] - 1,
        )
        for axis in (0, 1)
    ]
    low = [np.floor(w).astype(int) for w in where]
    high = [np.minimum(a + 1, n - 1) for a, n in zip(low, logits.shape, strict=True)]
    down, right = (where[0] - low[0])[:, None], (where[1] - low[1])[None]
    top = logits[low[0]][:, low[1]] * (1 - right) + logits[low[0]][:, high[1]] * right
    bottom = logits[high[0]][:, low[1]] * (1 - right) + logits[high[0]][:, high[1]] * right
    sampled = top * (1 - down) + bottom * down
    differ = unfit_masks(logits[None], geometry_of(size, INPUT))[0] != (
        sampled > RULES["mask"]["threshold"]
    )
    assert not differ[np.abs(sampled) > 1e-5].any()


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_the_score_is_that_of_the_rules(class_logit, objectness_logit):
    score = say(
        RULES["instance"]["score"],
        sigmoid=lambda x: 1 / (1 + exp(-x)),
        class_logits=class_logit,
        objectness_logits=objectness_logit,
    )
    assert class_scores(np.array(class_logit), np.array(objectness_logit)) == pytest.approx(score)
    assert RULES["instance"]["score_threshold"] == TrackSettings().score


def test_every_manifest_carries_them(exported: ExportBundle):
    manifest = json.loads((exported.folder / MANIFEST).read_bytes())
    assert manifest["pictures"] == json.loads(json.dumps(picture_rules(exported.config)))


def test_other_rules_are_refused(pair: Path):
    def other(manifest):
        manifest["pictures"]["fit"]["padding"] = [0, 0, 0]

    edit_manifest(pair, other)
    with pytest.raises(BundleError, match="prepared"):
        load_bundle(pair)
