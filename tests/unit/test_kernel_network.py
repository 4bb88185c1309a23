"""The contract of a kernel network: what a network says, and what follows from it."""

import doctest
import math

import numpy as np
import pytest
import torch
from tiny import TINY
from torch import nn

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.core.tracker import class_scores
from mobileinst_deploy.network import Decoded, Features, KernelNetwork, build_model, kernel_network
from mobileinst_deploy.network.user_network import TOLERANCE
from mobileinst_deploy.pair.comparison import compare_tensor

NEEDS = {"classes": ("cat", "dog"), "input_size": (64, 128), "num_queries": 3, "width": 4}


def needs(**changes) -> Needs:
    return Needs(**{**NEEDS, **changes})


class Small(KernelNetwork):
    """Fixed logits and kernels over one convolution."""

    def __init__(self, needs: Needs, logits: torch.Tensor, quality: torch.Tensor | None = None):
        super().__init__(needs)
        self.body = nn.Conv2d(3, needs.width, needs.mask_stride, needs.mask_stride)
        self.found = Decoded(logits, quality, torch.ones(1, needs.num_queries, needs.width))

    def features(self, image):
        return Features(self.body(self.normalise(image)))

    def decode(self, features):
        return self.found


def scores(network: KernelNetwork) -> np.ndarray:
    with torch.inference_mode():
        out = network(torch.zeros(1, 3, 64, 128))
    return class_scores(out.class_logits.numpy(), out.objectness_logits.numpy())[0]


def test_the_example_of_the_contract_runs():
    space = {**vars(kernel_network), "torch": torch, "nn": nn}
    result = doctest.testmod(kernel_network, extraglobs=space)
    assert result.attempted >= 2
    assert not result.failed


def test_quality_scores_pass_as_they_are():
    logits, quality = torch.randn(1, 3, 2), torch.randn(1, 3, 1)
    out = Small(needs(), logits, quality)(torch.zeros(1, 3, 64, 128))
    assert out.class_logits is logits
    assert out.objectness_logits is quality


@pytest.mark.parametrize("spread", [0.1, 3, 30])
def test_sigmoid_scores_stay_what_they_are(spread):
    logits = torch.randn(1, 3, 2) * spread
    got = scores(Small(needs(scores="sigmoid"), logits))
    np.testing.assert_allclose(got, logits[0].sigmoid(), atol=1e-6)


@pytest.mark.parametrize("spread", [0.1, 3, 30])
@pytest.mark.parametrize("classes", [1, 2, 80])
def test_softmax_scores_stay_what_they_are(classes, spread):
    wanted = needs(scores="softmax", classes=tuple(f"class {i}" for i in range(classes)))
    logits = torch.randn(1, 3, classes + 1, generator=torch.Generator().manual_seed(classes))
    logits = logits * spread
    got = scores(Small(wanted, logits))
    np.testing.assert_allclose(got, logits[0].softmax(-1)[:, :-1], atol=2e-5)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("threshold", [0.45, 0.5, 0.9])
def test_zero_is_the_border_whatever_the_threshold(threshold):
    network = Small(needs(mask_threshold=threshold), torch.zeros(1, 3, 2), torch.zeros(1, 3, 1))
    image = torch.rand(1, 3, 64, 128) * 255
    own = network.masks(network.found.kernels, network.features(image).mask_features)
    out = network(image)
    assert torch.equal(out.mask_logits > 0, own.sigmoid() > threshold)
    assert torch.equal(network.mask_head(image, out.kernels), out.mask_logits)


def test_a_network_of_bgr_is_given_bgr():
    rgb = Small(needs(mean=(1, 2, 3), std=(2, 4, 8)), torch.zeros(1, 3, 2), torch.zeros(1, 3, 1))
    bgr = Small(
        needs(mean=(1, 2, 3), std=(2, 4, 8), channel_order="bgr"),
        torch.zeros(1, 3, 2),
        torch.zeros(1, 3, 1),
    )
    image = torch.rand(1, 3, 64, 128) * 255
    assert torch.equal(bgr.normalise(image), rgb.normalise(image).flip(1))


def test_mobileinst_is_one_implementation():
    model = build_model(TINY).eval()
    assert isinstance(model, KernelNetwork)
    assert model.needs.width == TINY.width
    assert model.needs.mask_size == TINY.mask_size
    assert model.needs.scores == "quality"


def test_needs_survive_json():
    full = needs(channel_order="bgr", scores="softmax", mask_threshold=0.45, suppression="box")
    assert Needs.from_dict(full.to_dict()) == full


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"classes": ()}, "classes"),
        ({"classes": ("cat", "cat")}, "classes"),
        ({"classes": "cat"}, "classes"),
        ({"input_size": (64, 100)}, "input_size"),
        ({"input_size": (64,)}, "input_size"),
        ({"num_queries": 0}, "num_queries"),
        ({"num_queries": True}, "num_queries"),
        ({"width": 1.5}, "width"),
        ({"mask_stride": 1 << 20}, "mask_stride"),
        ({"mean": (0.0, math.nan, 0.0)}, "mean"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"std": (1.0, 10**400, 1.0)}, "std"),
        ({"scores": "guess"}, "scores"),
        ({"channel_order": "gbr"}, "channel_order"),
        ({"suppression": "soft"}, "suppression"),
        ({"mask_threshold": 1}, "mask_threshold"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_needs_that_cannot_be_are_refused_by_name(change, cause):
    with pytest.raises(ConfigError, match=cause):
        Needs.from_dict({**needs().to_dict(), **change})


@pytest.mark.parametrize(
    ("largest", "off", "passes"),
    [(574.0, 1.4e-2, True), (574.0, 4e-2, False), (4.0, 1.4e-2, False), (4.0, 5e-3, True)],
)
def test_what_rounding_is_allowed_grows_with_a_tensors_own_values(largest, off, passes):
    want = np.zeros((1, 3), np.float32)
    want[0, 0] = largest
    got = want.copy()
    got[0, 2] += off
    assert compare_tensor("frame", "mask_logits", got, want, TOLERANCE).passed is passes
