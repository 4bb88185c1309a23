"""Pictures that tell how they are turned: a colour in each corner."""

from __future__ import annotations

import numpy as np


def quadrants(height: int, width: int) -> np.ndarray:
    """Red, green over blue, white: tells every rotation and mirroring from every other."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 220, 30, 30
    picture[: height // 2, width // 2 :] = 30, 220, 30
    picture[height // 2 :, : width // 2] = 30, 30, 220
    picture[height // 2 :, width // 2 :] = 230, 230, 230
    return picture


def corners(pixels: np.ndarray) -> list[str]:
    """Names of the colours: top left, top right, bottom left, bottom right."""
    height, width = pixels.shape[:2]
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    places = [(y, x) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return [names[tuple((pixels[place] > 128).astype(int).tolist())] for place in places]
