"""Which frames of a clip become keyframes: every T-th, or when the scene asks for it."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import numpy as np

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.settled import settled
from mobileinst_deploy.core.text import shown, whole

#: Frames from one keyframe to the next, here and in the tracker's C library; more is a slip.
MAX_CLIP = 1_000_000


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
            raise ConfigError(f"-T {clip_length} is below 1", "Use 1, 2, 3 ... or auto")
        self.clip_length = clip_length
        self.name = str(clip_length)

    def wants_keyframe(self, image: np.ndarray, since: int | None) -> bool:
        """Whether T - 1 reuse frames have passed."""
        return since is None or since + 1 >= self.clip_length

    def observe(self, since: int, mask_logits: np.ndarray) -> None:
        """Nothing to learn."""


#: Values that one cell of a thumbnail sums up.
_SAMPLES = 3 * 8 * 8


class Auto:
    """A keyframe when the scene asks for one: it has changed, or the masks have lost their edge.

    Two cheap signs are watched. The picture: how far a thumbnail's brightness is from the
    keyframe's, which a cut, a pan or a fast object raises. The masks: how certain their pixels are
    compared with the keyframe's, which falls when kernels no longer fit what they look for.

    Args:
        longest: Most frames per keyframe.
        change: Mean difference of brightness from the keyframe, 0 to 255, that calls for a new one.
        certainty: Share of the keyframe's mask certainty below which a new one is called for.
    """

    name = "auto"

    def __init__(self, longest: int = 6, change: float = 16.0, certainty: float = 0.9) -> None:
        self.longest = longest
        self.change = change
        self.certainty = certainty
        self._thumbnail = np.zeros(0)
        self._sure_then = self._sure_now = 0.0

    def wants_keyframe(self, image: np.ndarray, since: int | None) -> bool:
        """See :meth:`Schedule.wants_keyframe`."""
        thumbnail = _thumbnail(image)
        wanted = (
            since is None
            or since + 1 >= self.longest
            or self._sure_now < self.certainty * self._sure_then
            or _difference(thumbnail, self._thumbnail) > self.change
        )
        if wanted:
            self._thumbnail = thumbnail
        return wanted

    def observe(self, since: int, mask_logits: np.ndarray) -> None:
        """See :meth:`Schedule.observe`."""
        self._sure_now = mask_certainty(mask_logits)
        if since == 0:
            self._sure_then = self._sure_now


def mask_certainty(mask_logits: np.ndarray) -> float:
    """How far inside their masks pixels are from the threshold: mean of tanh(logit / 2), 0 to 1.

    Settled, so that masks of one certainty are as certain as each other, whatever their sizes.

    Args:
        mask_logits: (k, h, w); only logits above 0 count. 0 when there are none.
    """
    inside = mask_logits[mask_logits > 0]
    return float(settled(np.tanh(inside / 2, dtype=np.float64).mean())) if inside.size else 0.0


def brightness_change(image: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two images (1, 3, H, W) in brightness, 0 to 255, as Auto has it."""
    return _difference(_thumbnail(image), _thumbnail(other))


def _difference(thumbnail: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(thumbnail - other).sum() / (_SAMPLES * thumbnail.size))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """(H/32, W/32) sums, each over all channels of every fourth pixel of an image (1, 3, H, W)."""
    picked = image[0, :, ::4, ::4].astype(np.float64)
    _, height, width = picked.shape
    # Sums of whole numbers are exact: a device adds in another order and decides alike.
    cells: np.ndarray = picked.reshape(3, height // 8, 8, width // 8, 8).sum(axis=(0, 2, 4))
    return cells


def parse_schedule(text: str) -> Every | Auto:
    """A schedule by its name on the command line: a whole number, or ``auto``.

    Raises:
        ConfigError: It is neither.
    """
    if text == "auto":
        return Auto()
    length = whole(text, 1, MAX_CLIP)
    if length is None:
        raise ConfigError(
            f"-T {shown(text, 60)!r} is neither auto nor a number from 1 to {MAX_CLIP:,}",
            "Use 1, 2, 3 ... or auto",
        )
    return Every(length)


def parse_rate(fps: float) -> Fraction:
    """Frames per second as a fraction: 29.97 is 30000/1001, as cameras have it.

    Raises:
        ConfigError: It is not a number from 0.01 to 1000.
    """
    if not 0.01 <= fps <= 1000:
        raise ConfigError(f"{fps} frames per second cannot be", "Give from 0.01 to 1000")
    # Broadcast's rates are a thousandth below whole ones.
    nearest = Fraction(round(fps * 1.001) * 1000, 1001)
    return nearest if abs(nearest - fps) < 0.005 else Fraction(fps).limit_denominator(1000)
