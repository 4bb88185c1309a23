"""The dual transformer instance decoder (paper section 3.3): queries to classes and kernels.

A global stage attends to the projected X6, a local stage to pooled mask features. A stage is
cross-attention and self-attention without a feed-forward network, which the MAC ledger excludes.
Attention keeps 4-D tensors (batch, heads, tokens, dim): the 3-D form loses precision in the paper's
own runtime at half precision.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.network.kernel_network import Decoded
from mobileinst_deploy.network.layers import frozen_tensor, static_shape

TEMPERATURE = 10000.0


@lru_cache(maxsize=64)
def sine_position(height: int, width: int, dim: int) -> np.ndarray:
    """The sine position embedding of a map, (height * width, dim), float32.

    The first half of the channels encodes the row and the second the column: positions 1 upwards,
    normalised to 2 pi, sine and cosine alternating at geometric frequencies (DETR's form).
    Computed by numpy so that a traced graph holds the finished table and no arithmetic.
    """
    per_axis = dim // 2
    frequency = TEMPERATURE ** (2 * (np.arange(per_axis) // 2) / per_axis)

    def axis(length: int) -> np.ndarray:
        angle = np.arange(1, length + 1)[:, None] / length * 2 * math.pi / frequency
        return np.where(np.arange(per_axis) % 2 == 0, np.sin(angle), np.cos(angle))

    rows = np.broadcast_to(axis(height)[:, None], (height, width, per_axis))
    columns = np.broadcast_to(axis(width)[None], (height, width, per_axis))
    table = np.concatenate([rows, columns], axis=2).reshape(height * width, dim)
    return table.astype(np.float32)


class Attention(nn.Module):
    """Multi-head attention in 4-D form.

    Args:
        width: D.
        num_heads: Heads; D is a multiple of it.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query (B or 1, N, D), key and value (B, T, D) to (B, N, D)."""
        q = self._heads(self.q(query)) * self.head_dim**-0.5
        k = self._heads(self.k(key)).transpose(2, 3)
        y = torch.matmul(torch.matmul(q, k).softmax(dim=-1), self._heads(self.v(value)))
        b, _, n, _ = static_shape(y)
        y = y.permute(0, 2, 1, 3).reshape(b, n, self.num_heads * self.head_dim)
        out: Tensor = self.out(y)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, heads, T, head dim)."""
        b, tokens, _ = static_shape(x)
        return x.reshape(b, tokens, self.num_heads, self.head_dim).permute(0, 2, 1, 3)


class DecoderStage(nn.Module):
    """Cross-attention to a map, then self-attention, each with residual and LayerNorm."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.cross_attention = Attention(width, num_heads)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, num_heads)
        self.self_norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, positions: Tensor, memory: Tensor) -> Tensor:
        """Refine the queries by a map.

        Args:
            queries: (B or 1, N, D).
            positions: (1, N, D), the learned query positions.
            memory: (B, D, h, w).

        Returns:
            (B, N, D).
        """
        b, d, h, w = static_shape(memory)
        values = memory.reshape(b, d, h * w).transpose(1, 2)
        keys = values + frozen_tensor(sine_position(h, w, d), values)
        queries = self.cross_norm(queries + self.cross_attention(queries + positions, keys, values))
        placed = queries + positions
        out: Tensor = self.self_norm(queries + self.self_attention(placed, placed, queries))
        return out


class InstanceDecoder(nn.Module):
    """The stages and the heads.

    Args:
        config: The model; its ``stages``, ``pool`` and ``pool_size`` reach Tables 3 and 5.
        x6_channels: Channels of X6.
    """

    def __init__(self, config: ModelConfig, x6_channels: int) -> None:
        super().__init__()
        d, n = config.width, config.num_queries
        self.kinds = config.stages
        self.pool = config.pool
        self.pool_size = config.pool_size
        self.queries = nn.Parameter(torch.zeros(n, d))
        self.positions = nn.Parameter(torch.zeros(n, d))
        self.stages = nn.ModuleList(DecoderStage(d, config.num_heads) for _ in config.stages)
        self.class_head = nn.Linear(d, config.num_classes)
        self.objectness_head = nn.Linear(d, 1)
        self.kernel_head = nn.Linear(d, d)

    @property
    def needs_x6(self) -> bool:
        """Whether a global stage is there."""
        return "global" in self.kinds

    def forward(
        self,
        mask_features: Tensor,
        memory: Tensor | None,
        queries: Tensor | None = None,
        first_stage: int = 0,
    ) -> Decoded:
        """Decode instances.

        Args:
            mask_features: (B, D, H/8, W/8).
            memory: (B, D, H/64, W/64), the projected X6; None if no global stage is there.
            queries: (B, N, D) that enter ``first_stage``, or None for the learned ones. Temporal
                training passes the global stage's queries of an earlier frame (section 3.5).
            first_stage: Index of the first stage to run.

        Raises:
            ValueError: ``first_stage`` is no stage, or a global stage has no X6.
        """
        if not 0 <= first_stage < len(self.kinds):
            raise ValueError(f"first_stage {first_stage} of {len(self.kinds)} stages")
        # A leading 1 broadcasts over the batch, and makes the first query projection a constant
        # that a graph simplifier folds.
        x = self.queries.unsqueeze(0) if queries is None else queries
        positions = self.positions.unsqueeze(0)
        local = None
        stage_queries = []
        for i in range(first_stage, len(self.kinds)):
            if self.kinds[i] == "local":
                local = self._pooled(mask_features) if local is None else local
                source = local
            elif memory is not None:
                source = memory
            else:
                raise ValueError("a global stage needs X6")
            x = self.stages[i](x, positions, source)
            stage_queries.append(x)
        return Decoded(
            self.class_head(x), self.objectness_head(x), self.kernel_head(x), tuple(stage_queries)
        )

    def _pooled(self, mask_features: Tensor) -> Tensor:
        if self.pool_size == 1:
            return mask_features
        pool = F.max_pool2d if self.pool == "max" else F.avg_pool2d
        return pool(mask_features, self.pool_size)
