"""A running average of the weights, which is calmer than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_WARMUP = 10


class Ema:
    """Exponential moving average of a module's state.

    Args:
        module: What is averaged; buffers such as BatchNorm's statistics are, too.
        decay: Share of the average that each update keeps, in [0, 1). Early updates keep less, so
            that the initial weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def to(self, device: torch.device) -> None:
        """Move the average to a device."""
        self._state = {k: v.to(device) for k, v in self._state.items()}

    @torch.no_grad()
    def update(self, module: nn.Module, iteration: int) -> None:
        """Take in the weights after an iteration, counted from 0."""
        decay = min(self.decay, (1 + iteration) / (_WARMUP + iteration))
        new = module.state_dict()
        floating = [k for k, v in self._state.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [self._state[k] for k in floating], [new[k] for k in floating], 1 - decay
        )
        for k in self._state.keys() - set(floating):
            self._state[k].copy_(new[k])

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """Give the module the average inside the block, and its own weights back after it."""
        own = {k: v.detach().clone() for k, v in module.state_dict().items()}
        module.load_state_dict(self._state)
        try:
            yield
        finally:
            module.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, by name."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved average."""
        for k, v in self._state.items():
            v.copy_(state[k])
