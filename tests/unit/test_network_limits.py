"""A network that nobody could run is refused before it takes memory."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from typing import get_args

import pytest
from tiny import TINY

from mobileinst_deploy.core.config import Backbone
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.zoo import load_model_toml, zoo_ids
from mobileinst_deploy.network import build_model
from mobileinst_deploy.network.limits import (
    MAX_ACTIVATION,
    MAX_PARAMETERS,
    count_parameters,
    largest_activation,
    parameter_bound,
    require_affordable,
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 4096, "decoder": "sparseinst", "decoder_convs": 64}, "weights"),
        ({"width": 4096, "stages": ("global", "local") * 32}, "weights"),
        ({"num_queries": 4096, "input_size": (4096, 4096)}, "elements of one picture"),
        ({"input_size": (4096, 4096)}, "elements of one picture"),
    ],
    ids=["convolutions", "stages", "queries", "picture"],
)
def test_a_network_beyond_every_machine_is_refused_before_it_is_built(change, said):
    count_parameters(TINY)  # wakes torch's meta device up
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=said):
        build_model(replace(TINY, **change))
    assert time.perf_counter() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


@pytest.mark.parametrize("model_id", zoo_ids())
def test_every_model_of_the_zoo_is_far_below_the_limits(model_id):
    config = load_model_toml(model_id).config
    require_affordable(config)
    assert count_parameters(config) < MAX_PARAMETERS / 8
    assert largest_activation(config) < MAX_ACTIVATION / 8


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"stages": ("local", "global", "local", "local", "global")},
        {"decoder": "sparseinst", "decoder_convs": 16},
        {"decoder": "fpn", "width": 128},
        {"num_queries": 900, "classes": tuple(map(str, range(500)))},
    ],
    ids=str,
)
@pytest.mark.parametrize("backbone", get_args(Backbone))
def test_no_network_has_more_weights_than_its_bound(backbone, change):
    config = replace(TINY, backbone=backbone, **change)
    assert count_parameters(config) <= parameter_bound(config)


def test_weights_are_counted_as_they_are():
    assert count_parameters(TINY) == sum(p.numel() for p in build_model(TINY).parameters())
