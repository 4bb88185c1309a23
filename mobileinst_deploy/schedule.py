"""Which frames of a clip become keyframes: every T-th, or when the scene asks for it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mobileinst_deploy.errors import ConfigError


class Schedule(Protocol):
    """Decides frame by frame; what it remembers begins anew with each clip."""

    #: For people and reports, such as ``3`` or ``auto``.
    name: str

    def wants_keyframe(self, image: np.ndarray, since: int | None) -> bool:
        """Whether the coming frame shall be a keyframe.

        Args:
            image: (1, 3, H, W) float32, RGB, 0 to 255.
            since: Frames between the last keyframe and the last frame; None when the clip begins,
                and then the answer must be True.
        """
        ...

    def observe(self, since: int, mask_logits: np.ndarray) -> None:
        """Learn from the frame that was just run.

        Args:
            since: Frames since its keyframe; 0 when it was one.
            mask_logits: (k, H/8, W/8) of its live instances.
        """
        ...


class Every:
    """A keyframe every T frames (paper, table 4).

    Args:
        clip_length: T, from 1 up.

    Raises:
        ConfigError: It is below 1.
    """

    def __init__(self, clip_length: int) -> None:
        if clip_length < 1:
            raise ConfigError(f"-T {clip_length} is not a clip length", "Use 1, 2, 3 ... or auto")
        self.clip_length = clip_length
        self.name = str(clip_length)

    def wants_keyframe(self, image: np.ndarray, since: int | None) -> bool:
        """Whether T - 1 reuse frames have passed."""
        return since is None or since + 1 >= self.clip_length

    def observe(self, since: int, mask_logits: np.ndarray) -> None:
        """Nothing to learn."""
