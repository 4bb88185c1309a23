"""FastInst (arXiv 2303.08594): queries picked from the picture, refined together with its pixels.

Pixels attend to queries and queries to pixels, layer by layer, so that the mask features depend on
the queries of their own picture. A reuse frame therefore runs all but the last heads: kernels can
be reused here, but it saves next to nothing. Module names follow the authors' code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.network.kernel_network import Decoded, Features, KernelNetwork
from mobileinst_deploy.network.layers import resize_like, static_shape
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
from mobileinst_deploy.network.peers.dense import best_cells
from mobileinst_deploy.network.peers.layers import ConvGN, PyramidPooling
from mobileinst_deploy.network.peers.layouts import detectron2

WIDTH = 256
HIDDEN = 1024
NUM_HEADS = 8
HELPERS = 8
LEAST_PROBABILITY = 1e-6


class PixelDecoder(nn.Module):
    """A top-down pyramid with pooling at its top: three maps of 256 channels."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        for i, c in enumerate(channels, start=1):
            self.add_module(f"adapter_{i}", ConvGN(c, WIDTH))
            self.add_module(f"layer_{i}", ConvGN(WIDTH, WIDTH, 3))
        self.ppm = PyramidPooling(WIDTH)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Maps at 1/8, 1/16, 1/32 to fused ones at 1/8 and 1/16."""
        c3, c4, c5 = (self.get_submodule(f"adapter_{i}")(x) for i, x in enumerate(maps, start=1))
        p5 = F.relu(self.get_submodule("layer_3")(self.ppm(c5)))
        p4 = F.relu(self.get_submodule("layer_2")(c4 + resize_like(p5, c4)))
        p3 = F.relu(self.get_submodule("layer_1")(c3 + resize_like(p4, c3)))
        return p3, p4


class QueryProposal(nn.Module):
    """The N positions of a map that look most like an object become queries (section 3.2)."""

    def __init__(self, num_queries: int, num_classes: int) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.conv_proposal_cls_logits = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, num_classes + 1, 1)
        )

    def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, D, h, w) and its positions (1, D, h, w) to two (B, N, D)."""
        probabilities = self.conv_proposal_cls_logits(x).softmax(1)[:, :-1]
        best = probabilities * (probabilities == probabilities.amax(1, keepdim=True))
        # A position that no neighbour of its own class outdoes goes before all that are outdone.
        peak = (best == F.max_pool2d(best, 3, 1, padding=1)) & (best >= LEAST_PROBABILITY)
        worth = (best + peak.to(best)).amax(1).flatten(1)
        places = tokens(place).expand(static_shape(x)[0], -1, -1)
        queries, query_places = best_cells(worth, self.num_queries, tokens(x), places)
        return queries, query_places


class Predictor(nn.Module):
    """Dual-path update of queries and pixels, and the heads after every layer (section 3.3)."""

    def __init__(self, num_queries: int, num_classes: int, num_layers: int) -> None:
        super().__init__()
        side = round(math.sqrt(num_queries))
        self.meta_pos_embed = nn.Parameter(torch.zeros(1, WIDTH, side, side))
        self.empty_query_features = nn.Embedding(HELPERS, WIDTH)
        self.empty_query_pos_embed = nn.Embedding(HELPERS, WIDTH)
        self.query_proposal = QueryProposal(num_queries, num_classes)

        def cross() -> nn.ModuleList:
            return nn.ModuleList(
                CrossAttention(WIDTH, NUM_HEADS, norm_first=False) for _ in range(num_layers)
            )

        def forward() -> nn.ModuleList:
            return nn.ModuleList(
                FeedForward(WIDTH, HIDDEN, norm_first=False) for _ in range(num_layers)
            )

        self.transformer_query_cross_attention_layers = cross()
        self.transformer_query_self_attention_layers = nn.ModuleList(
            SelfAttention(WIDTH, NUM_HEADS, norm_first=False) for _ in range(num_layers)
        )
        self.transformer_query_ffn_layers = forward()
        self.transformer_mask_cross_attention_layers = cross()
        self.transformer_mask_ffn_layers = forward()
        heads = range(num_layers + 1)
        self.decoder_query_norm_layers = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in heads)
        # Only the last one speaks in eval mode; the others are trained and published with it.
        self.class_embed_layers = nn.ModuleList(Mlp(WIDTH, num_classes + 1) for _ in heads)
        self.mask_embed_layers = nn.ModuleList(Mlp(WIDTH, WIDTH) for _ in heads)
        self.mask_features_layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in heads)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Maps at 1/8 and 1/16 to queries (B, N, D) and mask features (B, D, H/8, W/8)."""
        b, d, h, w = static_shape(fine)
        pixel_place = tokens(self._places(fine))
        queries, query_place = self.query_proposal(coarse, self._places(coarse))
        queries = torch.cat([queries, self.empty_query_features.weight.expand(b, -1, -1)], 1)
        helpers = self.empty_query_pos_embed.weight.expand(b, -1, -1)
        query_place = torch.cat([query_place, helpers], 1)
        pixels = tokens(fine)
        for i in range(len(self.transformer_mask_ffn_layers)):
            never = self._masked(i, queries, pixels)
            pixels = self.transformer_mask_cross_attention_layers[i](
                pixels, queries, pixel_place, query_place
            )
            pixels = self.transformer_mask_ffn_layers[i](pixels)
            queries = self.transformer_query_cross_attention_layers[i](
                queries, pixels, query_place, pixel_place, never
            )
            queries = self.transformer_query_self_attention_layers[i](queries, query_place)
            queries = self.transformer_query_ffn_layers[i](queries)
        mask_features = self.mask_features_layers[-1](pixels).transpose(1, 2).reshape(b, d, h, w)
        return self._normed(-1, queries), mask_features

    def heads(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised queries (B, N, D) to class logits (B, N, C + 1) and kernels (B, N, D)."""
        return self.class_embed_layers[-1](queries), self.mask_embed_layers[-1](queries)

    def _places(self, like: Tensor) -> Tensor:
        size = static_shape(like)[-2:]
        return F.interpolate(self.meta_pos_embed, size, mode="bilinear", align_corners=False)

    def _normed(self, head: int, queries: Tensor) -> Tensor:
        normed: Tensor = self.decoder_query_norm_layers[head](queries[:, :-HELPERS])
        return normed

    def _masked(self, head: int, queries: Tensor, pixels: Tensor) -> Tensor:
        """What keeps a query to its own mask: (B, 1, N + helpers, h * w), see masked attention."""
        kernels = self.mask_embed_layers[head](self._normed(head, queries))
        logits = torch.matmul(kernels, self.mask_features_layers[head](pixels).transpose(1, 2))
        return keep_inside(F.pad(logits, (0, 0, 0, HELPERS), value=1.0))


class Head(nn.Module):
    """Both decoders, under the authors' names."""

    def __init__(
        self, channels: tuple[int, int, int], num_queries: int, num_classes: int, num_layers: int
    ) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(channels)
        self.predictor = Predictor(num_queries, num_classes, num_layers)


class FastInst(KernelNetwork):
    """FastInst. Mask logits are at 1/8.

    Args:
        backbone: Which one; its maps at 1/8, 1/16 and 1/32 are read.
        classes: Class names.
        input_size: (height, width), multiples of 32, with TopFormer of 64.
        num_queries: N, of the map at 1/16 and so at most its positions.
        num_layers: Decoder layers: 1 (FastInst-D1) or 3 (-D3).
    """

    def __init__(
        self,
        backbone: PeerBackbone,
        classes: tuple[str, ...],
        input_size: tuple[int, int],
        num_queries: int = 100,
        num_layers: int = 3,
    ) -> None:
        super().__init__(
            Needs(
                classes,
                input_size,
                num_queries,
                WIDTH,
                size_multiple=size_multiple(backbone),
                scores="softmax",
                maskness=True,
            )
        )
        self.backbone = build_peer_backbone(backbone)
        self.sem_seg_head = Head(self.backbone.channels[1:], num_queries, len(classes), num_layers)

    def own_name(self, name: str) -> str | None:
        """See :func:`detectron2`."""
        return detectron2(name)

    def features(self, image: Tensor) -> Features:
        """Mask features (B, 256, H/8, W/8), and the queries that they were refined with."""
        _, c3, c4, c5 = self.backbone(self.normalise(image))
        fine, coarse = self.sem_seg_head.pixel_decoder((c3, c4, c5))
        queries, mask_features = self.sem_seg_head.predictor(fine, coarse)
        return Features(mask_features, queries)

    def decode(self, features: Features) -> Decoded:
        """N instances."""
        classes, kernels = self.sem_seg_head.predictor.heads(features.memory)
        return Decoded(classes, None, kernels)
