"""Mask2Former (arXiv 2112.01527) for instances: queries that look inside their own masks alone.

The pixel decoder mixes three maps by deformable attention (arXiv 2010.04159), so its graphs need
ONNX's GridSample, from opset 16 on. Module names follow the authors' code.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network.instance_decoder import sine_position
from mobileinst_deploy.network.kernel_network import (
    Decoded,
    Features,
    KernelNetwork,
    apply_kernels,
)
from mobileinst_deploy.network.layers import frozen_tensor, resize_like, static_shape
from mobileinst_deploy.network.peers.attention import (
    CrossAttention,
    FeedForward,
    Mlp,
    SelfAttention,
    keep_inside,
    tokens,
)
from mobileinst_deploy.network.peers.backbones import (
    PeerBackbone,
    build_peer_backbone,
    size_multiple,
)
from mobileinst_deploy.network.peers.layers import ConvGN
from mobileinst_deploy.network.peers.layouts import detectron2

WIDTH = 256
NUM_HEADS = 8
LEVELS = 3
POINTS = 4
ENCODER_HIDDEN = 1024
DECODER_HIDDEN = 2048

Sizes = list[tuple[int, int]]


class DeformableAttention(nn.Module):
    """Every position takes a few bilinear samples of each map, at places and weights it decides."""

    def __init__(self) -> None:
        super().__init__()
        samples = NUM_HEADS * LEVELS * POINTS
        self.sampling_offsets = nn.Linear(WIDTH, samples * 2)
        self.attention_weights = nn.Linear(WIDTH, samples)
        self.value_proj = nn.Linear(WIDTH, WIDTH)
        self.output_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, placed: Tensor, x: Tensor, sizes: Sizes) -> Tensor:
        """Mix.

        Args:
            placed: (B, T, D), the tokens with their positions added.
            x: (B, T, D), the tokens of all maps, one map after the other.
            sizes: (height, width) of each map.

        Returns:
            (B, T, D).
        """
        b, t, d = static_shape(x)
        heads, depth = NUM_HEADS, d // NUM_HEADS
        values = self.value_proj(x).reshape(b, t, heads, depth)
        offsets = self.sampling_offsets(placed).reshape(b, t, heads, LEVELS, POINTS * 2)
        weights = self.attention_weights(placed).reshape(b, t, heads, LEVELS * POINTS)
        weights = weights.softmax(-1).permute(0, 2, 1, 3).reshape(b * heads, 1, t, LEVELS * POINTS)
        own = frozen_tensor(_places(tuple(sizes)), x)
        parts, start = [], 0
        for level, (h, w) in enumerate(sizes):
            # One map per head, and the places on it from -1 to 1 as grid_sample has them.
            value = values[:, start : start + h * w].permute(0, 2, 3, 1)
            value = value.reshape(b * heads, depth, h, w)
            start += h * w
            shift = offsets[:, :, :, level].permute(0, 2, 1, 3).reshape(b * heads, t, POINTS, 2)
            unit = frozen_tensor(np.array([2 / w, 2 / h], np.float32), x)
            places = own + shift * unit
            parts.append(F.grid_sample(value, places, align_corners=False))
        y = (torch.cat(parts, -1) * weights).sum(-1)
        out: Tensor = self.output_proj(y.reshape(b, d, t).transpose(1, 2))
        return out


def _places(sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(1, T, 1, 2) float32: each position's x and y on its own map, from -1 to 1."""
    places = []
    for h, w in sizes:
        y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
        places.append(np.stack([x.ravel(), y.ravel()], 1))
    return (2 * np.concatenate(places)[None, :, None] - 1).astype(np.float32)


class EncoderLayer(nn.Module):
    """Deformable attention and a feed-forward network, each with residual and LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = DeformableAttention()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.linear1 = nn.Linear(WIDTH, ENCODER_HIDDEN)
        self.linear2 = nn.Linear(ENCODER_HIDDEN, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, position: Tensor, sizes: Sizes) -> Tensor:
        """(B, T, D) to the same shape."""
        x = self.norm1(x + self.self_attn(x + position, x, sizes))
        out: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        return out


class Encoder(nn.Module):
    """The layers, called ``layers``."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(num_layers))


class Transformer(nn.Module):
    """The encoder over all maps, and what tells one map from another."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.encoder = Encoder(num_layers)
        self.level_embed = nn.Parameter(torch.zeros(LEVELS, WIDTH))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, D, h, w), coarsest first, to the same shapes."""
        sizes: Sizes = [(h, w) for _, _, h, w in map(static_shape, maps)]
        x = torch.cat([tokens(m) for m in maps], 1)
        position = torch.cat(
            [
                frozen_tensor(sine_position(h, w, WIDTH)[None], x) + self.level_embed[i]
                for i, (h, w) in enumerate(sizes)
            ],
            1,
        )
        for layer in self.encoder.layers:
            x = layer(x, position, sizes)
        b = static_shape(x)[0]
        parts = torch.split(x, [h * w for h, w in sizes], 1)
        return [
            part.transpose(1, 2).reshape(b, WIDTH, h, w)
            for part, (h, w) in zip(parts, sizes, strict=True)
        ]


class PixelDecoder(nn.Module):
    """Four maps to mask features at 1/4 and three maps for the queries."""

    def __init__(self, channels: tuple[int, int, int, int], num_layers: int) -> None:
        super().__init__()
        c2, *coarser = channels
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, WIDTH, 1), nn.GroupNorm(32, WIDTH))
            for c in reversed(coarser)
        )
        self.transformer = Transformer(num_layers)
        self.adapter_1 = ConvGN(c2, WIDTH)
        self.layer_1 = ConvGN(WIDTH, WIDTH, 3)
        self.mask_features = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps at 1/4 to 1/32 to (B, D, H/4, W/4), and maps at 1/32, 1/16 and 1/8."""
        c2, *coarser = maps
        mixed: list[Tensor] = self.transformer(
            [f(x) for f, x in zip(self.input_proj, reversed(coarser), strict=True)]
        )
        fine = self.adapter_1(c2)
        fine = F.relu(self.layer_1(fine + resize_like(mixed[-1], fine)))
        return self.mask_features(fine), mixed


class Predictor(nn.Module):
    """The masked-attention decoder (section 3.2)."""

    def __init__(self, num_queries: int, num_classes: int, num_layers: int) -> None:
        super().__init__()
        layers = range(num_layers)
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttention(WIDTH, NUM_HEADS, norm_first=False) for _ in layers
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttention(WIDTH, NUM_HEADS, norm_first=False) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FeedForward(WIDTH, DECODER_HIDDEN, norm_first=False) for _ in layers
        )
        self.decoder_norm = nn.LayerNorm(WIDTH)
        self.query_feat = nn.Embedding(num_queries, WIDTH)
        self.query_embed = nn.Embedding(num_queries, WIDTH)
        self.level_embed = nn.Embedding(LEVELS, WIDTH)
        self.class_embed = nn.Linear(WIDTH, num_classes + 1)
        self.mask_embed = Mlp(WIDTH, WIDTH)

    def forward(self, maps: list[Tensor], mask_features: Tensor) -> Decoded:
        """Maps at 1/32, 1/16, 1/8 and mask features (B, D, H/4, W/4) to N instances."""
        b = static_shape(mask_features)[0]
        sizes = [static_shape(x)[-2:] for x in maps]
        memories = [tokens(x) + self.level_embed.weight[i] for i, x in enumerate(maps)]
        places = [frozen_tensor(sine_position(h, w, WIDTH)[None], mask_features) for h, w in sizes]
        place = self.query_embed.weight.unsqueeze(0)
        x = self.query_feat.weight.expand(b, -1, -1)
        for i, ffn in enumerate(self.transformer_ffn_layers):
            level = i % LEVELS
            kernels = self.mask_embed(self.decoder_norm(x))
            logits = apply_kernels(kernels, mask_features)
            seen = F.interpolate(logits, sizes[level], mode="bilinear", align_corners=False)
            x = self.transformer_cross_attention_layers[i](
                x, memories[level], place, places[level], keep_inside(seen.flatten(2))
            )
            x = ffn(self.transformer_self_attention_layers[i](x, place))
        x = self.decoder_norm(x)
        return Decoded(self.class_embed(x), None, self.mask_embed(x))


class Head(nn.Module):
    """Both decoders, under the authors' names."""

    def __init__(
        self,
        channels: tuple[int, int, int, int],
        num_queries: int,
        num_classes: int,
        encoder_layers: int,
        decoder_layers: int,
    ) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(channels, encoder_layers)
        self.predictor = Predictor(num_queries, num_classes, decoder_layers)


class Mask2Former(KernelNetwork):
    """Mask2Former. Mask logits are at 1/4.

    Args:
        backbone: Which one; all four maps are read.
        classes: Class names.
        input_size: (height, width), multiples of 32, with TopFormer of 64.
        num_queries: N.
        encoder_layers: Of deformable attention.
        decoder_layers: Of masked attention.
    """

    def __init__(
        self,
        backbone: PeerBackbone,
        classes: tuple[str, ...],
        input_size: tuple[int, int],
        num_queries: int = 100,
        encoder_layers: int = 6,
        decoder_layers: int = 9,
    ) -> None:
        super().__init__(
            Needs(
                classes,
                input_size,
                num_queries,
                WIDTH,
                mask_stride=4,
                size_multiple=size_multiple(backbone),
                scores="softmax",
                maskness=True,
            )
        )
        self.backbone = build_peer_backbone(backbone)
        self.sem_seg_head = Head(
            self.backbone.channels, num_queries, len(classes), encoder_layers, decoder_layers
        )

    def own_name(self, name: str) -> str | None:
        """See :func:`detectron2`."""
        return detectron2(name)

    def features(self, image: Tensor) -> Features:
        """Mask features (B, 256, H/4, W/4), and the maps that queries attend to."""
        maps = self.backbone(self.normalise(image))
        mask_features, mixed = self.sem_seg_head.pixel_decoder(maps)
        return Features(mask_features, mixed)

    def decode(self, features: Features) -> Decoded:
        """N instances."""
        found: Decoded = self.sem_seg_head.predictor(features.memory, features.mask_features)
        return found
