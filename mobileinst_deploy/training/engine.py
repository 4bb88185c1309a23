"""How a recipe is computed: the device, its arithmetic, the layout in memory, compiled parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import nn

from mobileinst_deploy.network.mobileinst import MobileInst
from mobileinst_deploy.training.config import TrainConfig
from mobileinst_deploy.training.objective import Objective


def set_up(config: TrainConfig) -> None:
    """Set what holds for all of PyTorch in this process: the threads, and TF32 on GPUs.

    TF32 keeps float32's range and 10 bits of its 23 of precision in products, with sums in float32.
    PyTorch has it on for convolutions and off for matrix products. CPUs take no notice.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32


def accelerator_of(config: TrainConfig) -> Accelerator:
    """The engine that moves, casts and distributes; one in a process."""
    set_up(config)
    # Without the hint several processes on CPUs would not find each other.
    return Accelerator(mixed_precision=config.precision, cpu=not torch.accelerator.is_available())


def laid_out(objective: Objective, config: TrainConfig) -> Objective:
    """The network as it is computed: channels last, and compiled where the recipe says so.

    Channels last is what convolutions are fastest in, on CPUs and on GPUs' tensor cores. Compiling
    leaves the names of weights as they are, so that a state fits with it and without it. The
    assignment of queries to instances is not compiled: how many there are differs by picture.
    """
    objective = objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        for part in _parts(objective.model):
            part.compile()
    return objective


def _parts(model: MobileInst) -> list[nn.Module]:
    return [model.backbone, model.mask_decoder, model.instance_decoder]


@contextmanager
def synchronised(accelerator: Accelerator, module: nn.Module, last: bool) -> Iterator[None]:
    """Exchange gradients between processes only in the last piece of a step."""
    if last:
        yield
    else:
        with accelerator.no_sync(module):
            yield
