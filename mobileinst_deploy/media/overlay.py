"""Drawing tracked instances over a picture, as in the paper's figures 6 and 7."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

KEYFRAME_COLOUR = (64, 200, 88)
REUSE_COLOUR = (228, 62, 56)
_FILL = 0.45
_WEIGHT = 600
#: Pixels that are blended at a time.
_BAND = 1 << 16


@dataclass(frozen=True)
class Shape:
    """One instance to draw.

    Attributes:
        id: Its identity, from 1 up; it decides the colour.
        label: What to write on it.
        mask: (H, W) bool, the size of the picture.
    """

    id: int
    label: str
    mask: np.ndarray = field(repr=False)


def draw_overlay(picture: np.ndarray, shapes: Iterable[Shape], keyframe: bool) -> np.ndarray:
    """Draw instances, their labels and the border that tells keyframes from reuse frames.

    Args:
        picture: (H, W, 3) uint8, RGB; not changed.
        shapes: Drawn in this order; the last lies on top.
        keyframe: A green border if so, else a red one.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    canvas = picture.copy()
    unit = max(1.0, min(canvas.shape[:2]) / 360)
    labels: list[tuple[Shape, tuple[int, int, int, int]]] = []
    for shape in shapes:
        box = _bounding_box(shape.mask)
        if box is not None:
            _draw_mask(canvas, shape, box, unit)
            labels.append((shape, box))
    border = max(1, round(3 * unit))
    taken: list[tuple[int, int, int, int]] = []
    for shape, box in reversed(labels):  # the top ones choose their place first
        _draw_label(canvas, shape, box, taken, unit, border)
    colour = KEYFRAME_COLOUR if keyframe else REUSE_COLOUR
    for side in (canvas[:border], canvas[-border:], canvas[:, :border], canvas[:, -border:]):
        side[:] = colour
    return canvas


@functools.cache
def colour_of(identity: int) -> tuple[int, int, int]:
    """The RGB colour, 0 to 255, of an identity: always the same, and unlike its neighbours'.

    Hues step by the golden angle, so that any run of identities is spread over the circle. In OKLCH
    they look equally bright, which HSV's would not.
    """
    hue = np.deg2rad(25 + 137.508 * identity)
    # Alternate rings keep identities apart whose hues come close again.
    lightness, chroma = ((0.72, 0.17), (0.80, 0.13), (0.65, 0.20))[identity % 3]
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    lms = (
        np.array(
            [[1, 0.3963378, 0.2158038], [1, -0.1055613, -0.0638542], [1, -0.0894842, -1.2914855]]
        )
        @ np.array([lightness, a, b])
    ) ** 3
    linear = np.clip(
        np.array(
            [
                [4.0767416, -3.3077116, 0.2309699],
                [-1.2684380, 2.6097574, -0.3413194],
                [-0.0041961, -0.7034186, 1.7076147],
            ]
        )
        @ lms,
        0,
        1,
    )
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(255 * float(v)) for v in curve)
    return red, green, blue


def _bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of what is set, right and bottom exclusive."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (left, top, left + width, top + height) if width else None


def _draw_mask(
    canvas: np.ndarray, shape: Shape, box: tuple[int, int, int, int], unit: float
) -> None:
    colour = colour_of(shape.id)
    thick = max(1, round(1.2 * unit))
    height, width = canvas.shape[:2]
    # Only the instance's own rectangle, and room for its contour, is touched.
    left, top = max(0, box[0] - thick - 1), max(0, box[1] - thick - 1)
    right, bottom = min(width, box[2] + thick + 1), min(height, box[3] + thick + 1)
    region = canvas[top:bottom, left:right]
    mask = np.ascontiguousarray(shape.mask[top:bottom, left:right]).view(np.uint8)
    _tint(region, mask, colour)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # Straightening the stairs of the pixels is smoother to see and several times faster to draw.
    smooth = [cv2.approxPolyDP(contour, 0.8, closed=True) for contour in contours]
    cv2.drawContours(region, smooth, -1, colour, thick, cv2.LINE_AA)


def _tint(region: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Blend a colour into a region where its mask is set."""
    # A band at a time: what lies between stays in the processor's cache.
    height = max(_BAND // region.shape[1], 1)
    plain = np.empty((min(height, len(region)), *region.shape[1:]), np.uint8)
    cv2.rectangle(plain, (0, 0), plain.shape[1::-1], colour, cv2.FILLED)
    blended = np.empty_like(plain)
    for top in range(0, len(region), height):
        band, shown = region[top : top + height], mask[top : top + height]
        part = blended[: len(band)]
        cv2.addWeighted(band, 1 - _FILL, plain[: len(band)], _FILL, 0, dst=part)
        cv2.copyTo(part, shown, band)


def _draw_label(
    canvas: np.ndarray,
    shape: Shape,
    box: tuple[int, int, int, int],
    taken: list[tuple[int, int, int, int]],
    unit: float,
    border: int,
) -> None:
    """Write the label in a plate on the upper edge of the mask, inside the picture, on no other."""
    size = max(9, round(11 * unit))
    pad = max(2, round(0.3 * size))
    _, _, text_width, _ = cv2.getTextSize((0, 0), shape.label, (0, 0), _font(), size, _WEIGHT)
    height, width = canvas.shape[:2]
    plate_width, plate_height = text_width + 2 * pad, round(1.2 * size) + pad
    left = max(border, min(box[0], width - border - plate_width))
    top = max(border, min(box[1] - plate_height, height - border - plate_height))
    while any(
        left < x1 and x0 < left + plate_width and top < y1 and y0 < top + plate_height
        for x0, y0, x1, y1 in taken
    ):
        top += max(1, plate_height // 2)
    if top + plate_height > height - border:
        return
    taken.append((left, top, left + plate_width, top + plate_height))
    colour = colour_of(shape.id)
    _plate(canvas, left, top, plate_width, plate_height, round(0.3 * size), colour)
    ink = (12, 12, 12) if np.dot(colour, (0.299, 0.587, 0.114)) > 120 else (255, 255, 255)
    baseline = top + (plate_height + round(0.7 * size)) // 2
    cv2.putText(canvas, shape.label, (left + pad, baseline), ink, _font(), size, _WEIGHT)


def _plate(
    canvas: np.ndarray,
    left: int,
    top: int,
    width: int,
    height: int,
    radius: int,
    colour: tuple[int, int, int],
) -> None:
    """A filled rectangle with round, smooth corners."""
    radius = min(radius, width // 2, height // 2)
    right, bottom = left + width - 1, top + height - 1
    for x0, y0, x1, y1 in (
        (left + radius, top, right - radius, bottom),
        (left, top + radius, right, bottom - radius),
    ):
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, cv2.FILLED)
    for x in (left + radius, right - radius):
        for y in (top + radius, bottom - radius):
            cv2.circle(canvas, (x, y), radius, colour, cv2.FILLED, cv2.LINE_AA)


@functools.cache
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")
