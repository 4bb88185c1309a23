"""A mask as annotation files write it: polygons or run lengths, and why it may show nothing."""

from __future__ import annotations

from operator import mul
from typing import Annotated

import hotcoco.mask
import msgspec
import numpy as np

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.masks import Rle, decode, encode, rle_area

NO_MASK = "annotations without a mask"
FEW_POINTS = "annotations with polygons of fewer than three points"
FLAT = "annotations with a flat list of numbers instead of a list of polygons"
NO_AREA = "annotations of no area"
OUTSIDE = "annotations outside their picture"
BROKEN = "annotations with a broken mask"
#: From the least to the most telling: a clip's object may well have no mask in some frames.
REASONS = (NO_MASK, FEW_POINTS, FLAT, NO_AREA, OUTSIDE, BROKEN)

MAX_BYTES = 4 << 20
_Coordinate = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
_Runs = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class _RunLengths(msgspec.Struct):
    size: tuple[_Runs, _Runs]
    counts: str | list[_Runs]


_DECODER = msgspec.json.Decoder(list[list[_Coordinate]] | _RunLengths | None)
_NUMBERS = msgspec.json.Decoder(list[float])


def problem(raw: msgspec.Raw, size: tuple[int, int]) -> str | None:
    """Why a segmentation shows nothing, found without drawing it; None when it may show some.

    Args:
        raw: Its JSON text.
        size: (height, width) of its picture.

    Returns:
        One of :data:`REASONS`, or None.
    """
    if len(memoryview(raw)) > MAX_BYTES:
        return BROKEN
    try:
        segmentation = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return FLAT if _is_flat(raw) else BROKEN
    if not segmentation:
        return NO_MASK
    if isinstance(segmentation, _RunLengths):
        try:
            if segmentation.size != size:
                return BROKEN
            return None if rle_area(msgspec.structs.asdict(segmentation)) else NO_AREA
        except DatasetError:
            return BROKEN
    if any(len(p) % 2 for p in segmentation):
        return BROKEN
    polygons = [p for p in segmentation if len(p) >= 6]
    return _shows_nothing(polygons, segmentation, size) if polygons else FEW_POINTS


def other_size(raw: msgspec.Raw, size: tuple[int, int]) -> int:
    """Pixels of whole run lengths of another size than their picture's; 0 for anything else."""
    if len(memoryview(raw)) > MAX_BYTES:
        return 0
    try:
        found = msgspec.json.decode(raw, type=_RunLengths)
        return 0 if found.size == size else rle_area(msgspec.structs.asdict(found))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, DatasetError):
        return 0


def to_mask(raw: msgspec.Raw, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W), bool, of a segmentation without a :func:`problem`."""
    return decode(to_rle(raw, size))


def to_rle(raw: msgspec.Raw, size: tuple[int, int]) -> Rle:
    """The compressed run lengths of a segmentation without a :func:`problem`."""
    # By the same types as above: what they pass over, such as a key that is no text, stays unread.
    segmentation = _DECODER.decode(raw)
    if isinstance(segmentation, list):
        return _drawn(segmentation, size)
    if isinstance(segmentation.counts, str):
        return {"size": list(size), "counts": segmentation.counts}
    return encode(decode(msgspec.structs.asdict(segmentation)))


def _is_flat(raw: msgspec.Raw) -> bool:
    try:
        return bool(_NUMBERS.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _shows_nothing(
    polygons: list[list[float]], segmentation: list[list[float]], size: tuple[int, int]
) -> str | None:
    # Of some dozens of numbers: numpy would take five times as long.
    left, top = min(min(p[::2]) for p in polygons), min(min(p[1::2]) for p in polygons)
    right, bottom = max(max(p[::2]) for p in polygons), max(max(p[1::2]) for p in polygons)
    if left >= size[1] or top >= size[0] or right <= 0 or bottom <= 0:
        return OUTSIDE
    # Only what is thinner than a pixel, or mostly outside, can miss every pixel's centre: drawing
    # the rest just to see that it is there would take minutes for the whole of COCO.
    area = sum(_area(polygon) for polygon in polygons)
    inside = left >= 0 and top >= 0 and right <= size[1] and bottom <= size[0]
    if area > max(right - left, bottom - top) and inside:
        return None
    return None if rle_area(_drawn(segmentation, size)) else NO_AREA


def _drawn(segmentation: list[list[float]], size: tuple[int, int]) -> Rle:
    polygons = [p for p in segmentation if len(p) >= 6]
    merged = hotcoco.mask.merge(hotcoco.mask.frPyObjects(polygons, *size))
    return {"size": list(size), "counts": merged["counts"].decode("ascii")}


def _area(polygon: list[float]) -> float:
    x, y = polygon[::2], polygon[1::2]
    first = sum(map(mul, x, y[1:] + y[:1]))
    area: float = abs(first - sum(map(mul, y, x[1:] + x[:1]))) / 2
    return area
