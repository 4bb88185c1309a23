"""What a clip is: pictures of one size, in order, each with the time when it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.text import size_text

#: Frames per second of a folder of pictures, which has none of its own.
FOLDER_RATE = Fraction(25)


@dataclass(frozen=True)
class Picture:
    """One frame of a clip.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, upright.
        pts: When it is shown, in units of the clip's time base; rises from frame to frame.
    """

    pixels: np.ndarray = field(repr=False)
    pts: int


class Clip(Protocol):
    """Pictures of one size, in order.

    Attributes:
        name: For people.
        time_base: Seconds per unit of ``pts``.
        rate: Frames per second, on average.
        expected: How many frames there should be, or None when nobody knows.
        audio: A file whose audio goes with the pictures, or None.
        start: When the first picture is shown by the audio's clock, seconds; its ``pts`` is 0.
        still: Whether it is one picture rather than a video.
    """

    name: str
    time_base: Fraction
    rate: Fraction
    expected: int | None
    audio: Path | None
    start: Fraction
    still: bool

    def __iter__(self) -> Iterator[Picture]:
        """Decode from the start.

        Raises:
            MediaError: At the picture that cannot be read or has another size than the first; for
                a damaged or truncated file, after the last picture that could be read.
        """
        ...


def same_size(size: tuple[int, int] | None, pixels: np.ndarray, where: str) -> tuple[int, int]:
    """The clip's (height, width).

    Raises:
        MediaError: This picture has another.
    """
    height, width = pixels.shape[:2]
    if size is not None and size != (height, width):
        raise MediaError(
            f"{where} has {size_text((height, width))} pixels (height x width), and the pictures "
            f"before it {size_text(size)}",
            "Give pictures of one size",
        )
    return height, width
