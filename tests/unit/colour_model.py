"""A model that a reader can predict: it finds patches of red, green and blue.

Mask features of a cell are its mean colour and a 1; the kernel of red is such that the product is
positive where a cell is red. Query 0 looks for red, 1 for green, 2 for blue, 3 for red once more.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny import TINY

from mobileinst_deploy.core.bundle import ExportBundle, GraphFile
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import ROLES, Call, graph_specs

CONFIG = replace(TINY, classes=("red", "green", "blue"), num_queries=4, width=4, num_heads=1)
KERNELS = np.array(
    [[8, -8, -8, -4], [-8, 8, -8, -4], [-8, -8, 8, -4], [7.5, -8, -8, -4]], np.float32
)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
STRONG, WEAK = 4.0, 2.0


class ColourRunner:
    """A GraphRunner that counts what it is asked; ``objectness``: each query's logit if seen."""

    name = "fake"
    runtime = "none"

    def __init__(self, *, emulated: bool = False, dynamic_kernels: bool = True) -> None:
        self.emulated = emulated
        self.specs = graph_specs(CONFIG, dynamic_kernels)
        self.objectness = np.array([STRONG, STRONG, STRONG, WEAK], np.float32)
        self.noise = 0.0
        self.frames = 0
        self.kernels_asked: list[int] = []
        self._random = np.random.default_rng(0)

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        return [getattr(self, call.role)(**call.inputs) for call in calls]

    def _features(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[2:]
        cells = image[0].reshape(3, height // 8, 8, width // 8, 8).mean(axis=(2, 4)) / 255
        return np.concatenate([cells, np.ones_like(cells[:1])]).astype(np.float32)

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.frames += 1
        noise = self._random.normal(size=KERNELS.shape) * self.noise
        kernels = (KERNELS + noise).astype(np.float32)
        masks = np.einsum("nd,dhw->nhw", kernels, self._features(image))
        seen = (masks > 0).any(axis=(1, 2))
        classes = np.full((4, 3), -6, np.float32)
        classes[np.arange(4), [0, 1, 2, 0]] = 4
        return {
            "class_logits": classes[None],
            "objectness_logits": np.where(seen, self.objectness, -8)
            .astype(np.float32)
            .reshape(1, 4, 1),
            "kernels": kernels[None],
            "mask_logits": masks[None].astype(np.float32),
        }

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> dict[str, np.ndarray]:
        self.kernels_asked.append(kernels.shape[1])
        masks = np.einsum("nd,dhw->nhw", kernels[0], self._features(image))
        return {"mask_logits": masks[None].astype(np.float32)}


def bundle() -> ExportBundle:
    """A bundle record whose files nobody opens."""
    nowhere = Path("nowhere")
    nobody = Content(nowhere, b"")
    return ExportBundle(
        folder=nowhere,
        pair_id="0" * 16,
        model_id="colours",
        config=CONFIG,
        trained=True,
        seed=None,
        checkpoint_sha256="0" * 64,
        tolerance=Tolerance(),
        optimized=(),
        graphs={
            role: GraphFile(graph_specs(CONFIG)[role], (nobody,), "0" * 64, 0, 17) for role in ROLES
        },
        golden=nobody,
        tools={},
        sha256="f" * 64,
    )


def patches(height: int = 64, width: int = 128, **where: tuple[int, int]) -> np.ndarray:
    """A grey (H, W, 3) uint8 picture with a square patch per colour at (top, left)."""
    picture = np.full((height, width, 3), 90, np.uint8)
    side = min(height, width) // 4
    for colour, (top, left) in where.items():
        picture[top : top + side, left : left + side] = COLOURS[colour]
    return picture


def image(**where: tuple[int, int]) -> np.ndarray:
    """:func:`patches` as the model takes it: (1, 3, 64, 128) float32."""
    return patches(**where).transpose(2, 0, 1)[None].astype(np.float32)
