"""How a recipe is computed: TF32, layout and compiled parts change the speed and not the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.network import build_model
from mobileinst_deploy.training.config import LossConfig, StageConfig, TrainConfig
from mobileinst_deploy.training.engine import laid_out, set_up
from mobileinst_deploy.training.objective import Objective, Target

CONFIG = TrainConfig("tiny", (StageConfig("image", 2, 1e-3, 1),))
MODEL = ModelConfig(
    "topformer-tiny", ("a", "b"), (64, 64), num_queries=4, width=16, num_heads=2, pool_size=2
)


def objective() -> Objective:
    return Objective(build_model(MODEL, 0), LossConfig()).train()


def loss(of: Objective) -> float:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    masks = torch.zeros(1, 32, 32)
    masks[0, 4:20, 8:30] = 1
    value = of(images, [Target(torch.zeros(1, dtype=torch.int64), masks)] * 2)["loss"]
    value.backward()
    assert all(p.grad is not None for p in of.model.backbone.parameters())
    return float(value.detach())


@pytest.fixture
def untouched():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    threads = torch.get_num_threads()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.set_num_threads(threads)


@pytest.mark.parametrize("tf32", [True, False])
def test_products_on_gpus_are_in_tf32_unless_the_recipe_says_no(tf32, untouched):
    assert CONFIG.tf32
    set_up(replace(CONFIG, tf32=tf32))
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32


def test_convolutions_are_laid_out_channels_last_and_give_the_same_losses():
    plain, laid = objective(), laid_out(objective(), CONFIG)
    convolutions = [m for m in laid.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    assert loss(laid) == pytest.approx(loss(plain), rel=1e-4)


# What Dynamo warns of while it traces has no consequence, and as an error it would stop it.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_parts_keep_the_names_of_weights_and_give_the_same_losses(monkeypatch):
    """By the compiler with its graphs left to PyTorch: making C++ of them takes minutes."""
    compiled: list[nn.Module] = []
    original = nn.Module.compile

    def in_plain_pytorch(part: nn.Module) -> None:
        compiled.append(part)
        original(part, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", in_plain_pytorch)
    plain, fast = objective(), laid_out(objective(), replace(CONFIG, compile=True))
    assert compiled == [fast.model.backbone, fast.model.mask_decoder, fast.model.instance_decoder]
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert loss(fast) == pytest.approx(loss(plain), rel=1e-4)
