"""Frozen modules keep their weights and statistics, and compute what they computed."""

import pytest
import torch

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.network import build_model, randomize_batchnorm
from mobileinst_deploy.training.frozen import freeze

CONFIG = ModelConfig(
    "mobilenetv2", ("a",), (64, 64), num_queries=2, width=8, num_heads=2, padding="tensorflow"
)
NAMES = [f"backbone.features.{i}" for i in range(7)]


def picture(seed):
    return 255 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_a_frozen_module_computes_what_it_did_in_eval_mode_and_passes_no_gradient():
    model = build_model(CONFIG, 0)
    randomize_batchnorm(model, 0)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    front = model.backbone.features[:7]
    x = picture(1)
    want = front.eval()(x)
    freeze(model, NAMES)
    model.train()
    got = model.backbone.features[:7](x)
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-4)
    assert not got.requires_grad
    model(x).mask_logits.sum().backward()
    assert model.backbone.features[6].conv[0][0].weight.grad is None
    assert model.backbone.features[7].conv[0][0].weight.grad is not None
    assert model.state_dict().keys() == state.keys()
    for name in state:
        if name.startswith(tuple(f"{n}." for n in NAMES)):
            assert torch.equal(model.state_dict()[name], state[name]), name


@pytest.mark.parametrize("name", ["", "backbone.features.99", "features.0"])
def test_a_name_of_no_module_is_refused(name):
    with pytest.raises(ConfigError, match="no module"):
        freeze(build_model(CONFIG, 0), [name])
