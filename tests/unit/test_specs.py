"""What a model may be, and what its graphs then look like."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from tiny import TINY

from mobileinst_deploy.core.config import ModelConfig, Tolerance, parse_size
from mobileinst_deploy.core.contract import TensorSpec, graph_specs
from mobileinst_deploy.core.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": "resnet50"}, "backbone is 'resnet50', not "),
        ({"decoder": "unet"}, "decoder is 'unet', not "),
        ({"pool": "min"}, "pool is 'min', not 'avg' or 'max'"),
        ({"stages": ()}, "stages"),
        ({"stages": ("global", "glocal")}, "stages"),
        ({"input_size": (64, 100)}, "the size 64x100"),
        ({"input_size": (0, 64)}, "input_size[0] is 0, not a whole number from 1 to 4096"),
        ({"input_size": (64, 8192)}, "input_size[1] is 8192"),
        ({"input_size": (64,)}, "input_size is a list of 1, not a list of 2"),
        ({"input_size": (64.0, 128)}, "input_size[0] is 64.0"),
        ({"num_queries": 0}, "num_queries is 0"),
        ({"num_queries": True}, "num_queries is true"),
        ({"num_queries": 10**9}, "num_queries is 1000000000"),
        ({"width": 18}, "width 18 is not a multiple"),
        ({"num_heads": 3}, "width 16 is not a multiple"),
        ({"decoder_convs": 1.5}, "decoder_convs is 1.5"),
        ({"pool_size": 3}, "pool_size is 3, not 1, 2, 4 or 8"),
        ({"classes": ()}, "classes is an empty list"),
        ({"classes": ("cat", "")}, "classes[1] is ''"),
        ({"classes": ("cat", "cat")}, "classes names one class twice"),
        ({"mean": (1.0, 2.0)}, "mean is"),
        ({"mean": (1.0, 2.0, float("nan"))}, "mean[2] is nan"),
        ({"std": (1.0, 0.0, 1.0)}, "std[1] is 0.0"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_where_it_is_made(change, said):
    with pytest.raises(ConfigError) as caught:
        replace(TINY, **change)
    assert caught.value.cause.startswith(said)


def test_a_configuration_survives_json():
    assert ModelConfig.from_dict(TINY.to_dict()) == TINY


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "lacks backbone"),
        ({**TINY.to_dict(), "colour": 1}, "unknown field 'colour'"),
        ({**TINY.to_dict(), "classes": "cat"}, "classes is 'cat', not a list"),
        ({**TINY.to_dict(), "enhancer": 1}, "enhancer is 1, not true or false"),
        ({**TINY.to_dict(), "mean": ["a", 1, 2]}, r"mean\[0\] is 'a', not a finite number"),
        ({**TINY.to_dict(), "mean": [10**400, 1, 2]}, "a whole number of about 400 digits"),
    ],
)
def test_a_written_configuration_is_checked_field_by_field(data, said):
    with pytest.raises(ConfigError, match=said):
        ModelConfig.from_dict(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(name=st.sampled_from([f.name for f in fields(ModelConfig)]), value=json_values)
def test_no_value_of_any_field_does_worse_than_a_sentence(name, value):
    with suppress(ConfigError):
        ModelConfig.from_dict({**TINY.to_dict(), name: value})


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True, 10**400])
@pytest.mark.parametrize("name", [f.name for f in fields(Tolerance)])
def test_a_tolerance_is_a_finite_number_from_0_up(name, value):
    with pytest.raises(ConfigError, match=name):
        Tolerance(**{name: value})


@pytest.mark.parametrize("name", ["min_cosine", "min_mask_iou"])
def test_no_more_than_perfect_agreement_can_be_asked_for(name):
    with pytest.raises(ConfigError, match=f"{name} is 1.5, not a finite number from 0 to 1"):
        Tolerance(**{name: 1.5})


def test_the_two_graphs_of_a_model():
    specs = graph_specs(TINY)
    assert {t.name: t.shape for t in specs["frame"].inputs} == {"image": (1, 3, 64, 128)}
    assert {t.name: t.shape for t in specs["frame"].outputs} == {
        "class_logits": (1, 5, 3),
        "objectness_logits": (1, 5, 1),
        "kernels": (1, 5, 16),
        "mask_logits": (1, 5, 8, 16),
    }
    assert [t.name for t in specs["mask_head"].inputs] == ["image", "kernels"]
    assert specs["mask_head"].inputs[1].shape == (1, "n", 16)
    assert specs["mask_head"].outputs[0].shape == (1, "n", 8, 16)


def test_static_kernels_fix_the_one_free_axis():
    spec = graph_specs(TINY, dynamic_kernels=False)["mask_head"]
    assert spec.inputs[1].shape == (1, 5, 16)
    assert spec.outputs[0].shape == (1, 5, 8, 16)


@pytest.mark.parametrize("text", ["384x640", "384X640"])
def test_a_size_is_height_times_width(text):
    assert parse_size(text) == (384, 640)


@pytest.mark.parametrize(
    "text",
    ["", "384", "384x", "384x640x3", "-64x64", "384x641", "0x0", "٣٨٤x640", "9" * 5000 + "x64"],
)
def test_anything_else_is_no_size(text):
    with pytest.raises(ConfigError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("array", "accepted"),
    [
        (np.zeros((1, 7, 16), np.float32), True),
        (np.zeros((1, 0, 16), np.float32), True),
        (np.zeros((1, 7, 15), np.float32), False),
        (np.zeros((1, 7, 16)), False),
        (np.zeros((7, 16), np.float32), False),
    ],
)
def test_a_tensor_is_known_by_dtype_and_shape_and_a_symbol_takes_any_length(array, accepted):
    assert TensorSpec("kernels", "float32", (1, "n", 16)).accepts(array) is accepted
