"""What stops a training run, in sentences: memory, small pictures, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.training.config import TrainConfig


@contextmanager
def explained(config: TrainConfig) -> Iterator[None]:
    """Say what PyTorch's failures inside the block mean for the recipe.

    Raises:
        ConfigError: Memory ran out, or a batch is too small to normalise.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(config) from error
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ConfigError(
                "a picture of a batch of 1 is so small that batch normalisation, at 1/64 of it, "
                "has one value to take a mean of",
                "Set batch to 2 or more, or give the stage a larger size",
            ) from error
        raise
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise _out_of_memory(config) from error
        if str(error).startswith("DataLoader worker"):
            raise ConfigError(
                "a process that reads the data was ended from outside, as a system does that "
                "has no memory left",
                "Set data.workers lower and go on with --resume",
            ) from error
        raise


def require_finite(
    loss: Tensor, norm: Tensor, config: TrainConfig, iteration: int, good: Path
) -> None:
    """Refuse to take a step that would spoil the weights.

    Args:
        loss: Of the step.
        norm: Of its gradient.
        config: The recipe.
        iteration: The step's number, from 1.
        good: Where the last good weights are.

    Raises:
        ConfigError: One of the two is no finite number.
    """
    next_step = f"Lower lr and start another run from the last good weights, --weights {good}"
    if not bool(torch.isfinite(loss)):
        raise ConfigError(f"the loss is {float(loss)} at iteration {iteration}", next_step)
    # In fp16 the scaler leaves out a step whose gradient overflowed, and lowers its scale.
    if config.precision != "fp16" and not bool(torch.isfinite(norm)):
        raise ConfigError(f"the gradient is not finite at iteration {iteration}", next_step)


def _out_of_memory(config: TrainConfig) -> ConfigError:
    largest = max(stage.batch for stage in config.stages)
    return ConfigError(
        f"memory ran out with batches of up to {largest}",
        f"Set batch to {max(largest // 2, 1)} and accumulate to {config.accumulate * 2}, which "
        "makes the same steps in smaller pieces",
    )
