"""Transformer layers in torch's key layout, which the DETR family of peers shares.

Attention keeps 4-D tensors (batch, heads, tokens, dim), as MobileInst's own does. Queries and keys
get their positions added; values do not.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.network.layers import static_shape

#: Added to a score that must not count: its weight becomes exactly 0 in float32.
NEVER = -1e9


class PackedAttention(nn.Module):
    """Multi-head attention whose three input projections are one matrix.

    Args:
        width: D.
        num_heads: Heads; D is a multiple of it.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, never: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: (B or 1, N, D).
            key: (B or 1, T, D).
            value: (B, T, D).
            never: (B, 1, N, T), added to the scores: :data:`NEVER` where a key must not count.

        Returns:
            (B, N, D).
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            self._heads(F.linear(x, w, b))
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        scores = torch.matmul(q * static_shape(q)[-1] ** -0.5, k.transpose(2, 3))
        if never is not None:
            scores = scores + never
        y = torch.matmul(scores.softmax(-1), v)
        b, heads, n, head_dim = static_shape(y)
        out: Tensor = self.out_proj(y.permute(0, 2, 1, 3).reshape(b, n, heads * head_dim))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        b, tokens, d = static_shape(x)
        return x.reshape(b, tokens, self.num_heads, d // self.num_heads).permute(0, 2, 1, 3)


class CrossAttention(nn.Module):
    """Attention to another set of tokens, with residual and LayerNorm.

    Args:
        width: D.
        num_heads: Heads.
        norm_first: Whether the queries are normalised before (and not after) attention.
    """

    def __init__(self, width: int, num_heads: int, norm_first: bool) -> None:
        super().__init__()
        self.multihead_attn = PackedAttention(width, num_heads)
        self.norm = nn.LayerNorm(width)
        self.norm_first = norm_first

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        x_position: Tensor,
        memory_position: Tensor,
        never: Tensor | None = None,
    ) -> Tensor:
        """Tokens (B or 1, N, D) that attend to memory (B, T, D); see :class:`PackedAttention`."""
        query = self.norm(x) if self.norm_first else x
        keys = memory + memory_position
        x = x + self.multihead_attn(query + x_position, keys, memory, never)
        out: Tensor = x if self.norm_first else self.norm(x)
        return out


class SelfAttention(nn.Module):
    """Attention among the tokens, with residual and LayerNorm; arguments as before."""

    def __init__(self, width: int, num_heads: int, norm_first: bool) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, num_heads)
        self.norm = nn.LayerNorm(width)
        self.norm_first = norm_first

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, D) to the same shape."""
        value = self.norm(x) if self.norm_first else x
        placed = value + position
        x = x + self.self_attn(placed, placed, value)
        out: Tensor = x if self.norm_first else self.norm(x)
        return out


class FeedForward(nn.Module):
    """Two linear layers with a ReLU, residual and LayerNorm."""

    def __init__(self, width: int, hidden: int, norm_first: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        self.norm_first = norm_first

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to the same shape."""
        y = self.norm(x) if self.norm_first else x
        x = x + self.linear2(F.relu(self.linear1(y)))
        out: Tensor = x if self.norm_first else self.norm(x)
        return out


class Mlp(nn.Module):
    """Linear layers with ReLU between them, under the name ``layers``."""

    def __init__(self, width: int, out_width: int, depth: int = 3) -> None:
        super().__init__()
        widths = [width] * depth + [out_width]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., out_width)."""
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(x)) if i + 1 < len(self.layers) else layer(x)
        return x


def tokens(x: Tensor) -> Tensor:
    """A map (B, C, h, w) as (B, h * w, C)."""
    b, c, h, w = static_shape(x)
    return x.reshape(b, c, h * w).transpose(1, 2)


def keep_inside(logits: Tensor) -> Tensor:
    """Mask logits (B, N, T) as an addend to attention scores (B, 1, N, T).

    A query looks at its mask alone; one whose mask is empty looks everywhere.
    """
    inside = (logits >= 0).to(logits)
    outside = (1 - inside) * inside.amax(-1, keepdim=True)
    return (outside * NEVER).unsqueeze(1)
