"""How a picture of any size becomes a network input and how masks find the way back.

Training, evaluation and deployment all pass here, so that a mask can never be wrong because two of
them resized differently: keep the aspect, fill the input size as far as it goes, pad right and
bottom.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.masks import sample_masks
from mobileinst_deploy.core.picture_rules import PADDING


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies inside a network input.

    Attributes:
        original: (height, width) of the picture in pixels.
        content: (height, width) in pixels that the resized picture takes, from the top left.
        input_size: (height, width) of the network input in pixels.
    """

    original: tuple[int, int]
    content: tuple[int, int]
    input_size: tuple[int, int]

    @property
    def scale(self) -> float:
        """Input pixels per picture pixel, before the content is rounded to whole pixels."""
        return min(
            self.input_size[0] / self.original[0],
            self.input_size[1] / self.original[1],
        )


def turned_for(input_size: tuple[int, int], picture: tuple[int, ...]) -> tuple[int, int]:
    """An input size of the same area in the orientation of a picture.

    Args:
        input_size: (height, width) in pixels.
        picture: (height, width) of the picture; a square one lies.

    Returns:
        ``input_size``, turned where one is upright and the other is not.
    """
    height, width = input_size
    return (width, height) if is_upright(input_size) != is_upright(picture) else input_size


def is_upright(size: tuple[int, ...]) -> bool:
    """Whether a picture of a size (height, width) is higher than wide."""
    return size[0] > size[1]


def geometry_of(original: tuple[int, int], input_size: tuple[int, int]) -> Geometry:
    """The geometry of a picture of ``original`` (height, width) inside ``input_size``.

    Raises:
        MediaError: The picture has no pixels.
    """
    if min(original) < 1:
        raise MediaError(
            f"a picture of {original[0]}x{original[1]} pixels has nothing to see",
            "Give a picture of at least one pixel",
        )
    scale = min(input_size[0] / original[0], input_size[1] / original[1])
    content = tuple(
        min(max(1, round(o * scale)), i) for o, i in zip(original, input_size, strict=True)
    )
    return Geometry(original, (content[0], content[1]), input_size)


def fit(image: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, Geometry]:
    """Resize a picture into a network input, keeping its aspect, padded right and bottom.

    Args:
        image: (H0, W0, 3) uint8, RGB.
        input_size: (height, width) in pixels of the network input.

    Returns:
        The input (height, width, 3), uint8, RGB, C-contiguous, and its geometry.

    Raises:
        MediaError: ``image`` is not of that form.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise MediaError(
            f"a picture of shape {image.shape} and type {image.dtype} is not 8-bit RGB",
            "Convert it to 8-bit RGB",
        )
    geometry = geometry_of((image.shape[0], image.shape[1]), input_size)
    height, width = geometry.content
    resized = _resize(image, geometry)
    if geometry.content == input_size:
        return np.ascontiguousarray(resized), geometry
    padded = np.empty((*input_size, 3), np.uint8)
    padded[:height, :width] = resized
    padded[height:] = PADDING
    padded[:height, width:] = PADDING
    return padded, geometry


def as_image(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) uint8, RGB, of the input size as both graphs take them.

    Returns:
        (1, 3, H, W) float32, RGB, 0 to 255, C-contiguous.
    """
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def prepare(picture: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, Geometry]:
    """A picture of any size as both graphs take it, and where it lies inside.

    Args:
        picture: (H0, W0, 3) uint8, RGB.
        input_size: (height, width) in pixels of the network input.

    Returns:
        (1, 3, height, width) float32, RGB, 0 to 255, and the picture's geometry.

    Raises:
        MediaError: ``picture`` is not of that form.
    """
    fitted, geometry = fit(picture, input_size)
    return as_image(fitted), geometry


def unfit_masks(mask_logits: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Masks at the picture's own resolution from mask logits over the network input.

    Each pixel of the picture takes one bilinear sample at its centre's place among the logits and
    belongs to the mask when that is above
    :data:`~mobileinst_deploy.core.picture_rules.MASK_THRESHOLD`.

    Args:
        mask_logits: (n, h, w) float32 over the whole network input, padding included.
        geometry: From :func:`fit` of the picture.

    Returns:
        (n, H0, W0) bool.
    """
    positions = [
        (np.arange(original) + 0.5) * (content / original) * (logits / size) - 0.5
        for original, content, size, logits in zip(
            geometry.original,
            geometry.content,
            geometry.input_size,
            mask_logits.shape[1:],
            strict=True,
        )
    ]
    return sample_masks(mask_logits, positions[0], positions[1])


def _resize(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """To the content's size: by area when that shrinks the picture, else bilinear."""
    if geometry.content == geometry.original:
        return image
    height, width = geometry.content
    way = cv2.INTER_AREA if geometry.scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=way)
