"""Masks as numpy sees them: COCO's run lengths, overlaps, and logits sampled at any resolution.

Run lengths follow COCO's ``mask`` format: pixels are read column by column, runs of zeros and ones
alternate beginning with zeros, and the compressed form writes each run as a signed variable-length
number of 5-bit digits (one printable character each, from ``"0"``), from the fourth run on as its
difference from the run two before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.picture_rules import MASK_THRESHOLD

_REPAIR = "Write masks in COCO's run-length form, one number of pixels per run"
# A run never needs more 5-bit digits than this: sizes are bounded to 2**31 pixels.
_MOST_DIGITS = 7
_MOST_PIXELS = 2**31
# Pixels that are sampled at a time.
_BAND = 1 << 16


class Rle(TypedDict):
    """One mask in COCO's compressed run-length form.

    Attributes:
        size: [height, width] in pixels.
        counts: The compressed run lengths.
    """

    size: list[int]
    counts: str


def encode(mask: np.ndarray) -> Rle:
    """The compressed run lengths of a mask (H, W), bool."""
    height, width = mask.shape
    return {"size": [height, width], "counts": _compress(_runs(mask))}


def decode(rle: Any) -> np.ndarray:
    """The mask (H, W), bool, of run lengths, compressed (a string or bytes) or plain (a list).

    Raises:
        DatasetError: ``rle`` is not in COCO's form, or its runs do not fill its size.
    """
    height, width = rle_size(rle)
    runs = rle_runs(rle)
    parity = np.zeros(len(runs), bool)
    parity[1::2] = True
    return np.repeat(parity, runs).reshape(width, height).T


def rle_size(rle: Any) -> tuple[int, int]:
    """(height, width) of a run-length mask.

    Raises:
        DatasetError: ``rle`` is not in COCO's form.
    """
    size = rle.get("size") if isinstance(rle, dict) else None
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in size)
        or size[0] * size[1] >= _MOST_PIXELS
    ):
        raise DatasetError(f"a run-length mask has the size {size!r}", _REPAIR)
    return size[0], size[1]


def rle_runs(rle: Any) -> np.ndarray:
    """The run lengths (R,), int64, zeros first, of a run-length mask in either form.

    Raises:
        DatasetError: ``rle`` is not in COCO's form, or its runs do not fill its size.
    """
    height, width = rle_size(rle)
    counts = rle.get("counts")
    if isinstance(counts, str) and counts.isascii():
        counts = counts.encode("ascii")
    if isinstance(counts, bytes):
        runs = _decompress(counts)
    elif isinstance(counts, list) and all(type(v) is int and 0 <= v < _MOST_PIXELS for v in counts):
        runs = np.array(counts, np.int64)
    else:
        raise DatasetError("a run-length mask has no usable counts", _REPAIR)
    if (runs < 0).any() or runs.sum() != height * width:
        raise DatasetError(
            f"a run-length mask of {height}x{width} pixels has runs that do not fill it", _REPAIR
        )
    return runs


def rle_area(rle: Any) -> int:
    """How many pixels a run-length mask covers.

    Raises:
        DatasetError: ``rle`` is not in COCO's form.
    """
    return int(rle_runs(rle)[1::2].sum())


def side_by_side(rles: Sequence[Rle | None], size: tuple[int, int]) -> Rle:
    """One H x (W*T) mask of the masks of a track's T frames, None where the track is absent.

    COCO counts column by column, so that laying frames side by side joins their runs.

    Args:
        rles: One entry per frame.
        size: (height, width) of each frame.

    Raises:
        DatasetError: A mask has another size.
    """
    height, width = size
    gap = np.array([height * width], np.int64)
    pieces: list[np.ndarray] = []
    for rle in rles:
        if rle is not None and rle_size(rle) != size:
            raise DatasetError(
                f"a mask of size {rle['size']} is in a clip of size {[height, width]}",
                "Give every mask of a clip the clip's size",
            )
        runs = gap if rle is None else rle_runs(rle)
        # An even number of runs ends with ones, so that every frame begins with zeros.
        pieces.append(np.append(runs, 0) if len(runs) % 2 else runs)
    joined = np.concatenate([*pieces, np.zeros(0, np.int64)])
    return {"size": [height, width * len(rles)], "counts": _compress(_without_empty(joined))}


def apart(rle: Rle, frames: int) -> list[Rle | None]:
    """The masks that :func:`side_by_side` joined; None for a frame without a pixel.

    Args:
        rle: H x (W*T).
        frames: T.

    Raises:
        DatasetError: ``rle`` is not in COCO's form.
    """
    height, width = rle_size(rle)
    pixels = height * width // frames
    # Where masks begin and end by turns, counted from the first pixel of the first frame.
    edges = np.cumsum(rle_runs(rle))[:-1]
    bounds = pixels * np.arange(frames + 1)
    first, last = edges.searchsorted(bounds[:-1], "right"), edges.searchsorted(bounds[1:], "left")
    size = [height, width // frames]
    found: list[Rle | None] = []
    for t, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        inside = low % 2 == 1
        if low == high and not inside:
            found.append(None)
            continue
        runs = np.diff(np.concatenate(([0], edges[low:high] - t * pixels, [pixels])))
        runs = np.concatenate(([0], runs)) if inside else runs
        runs = _without_empty(runs)
        found.append({"size": list(size), "counts": _compress(runs)} if len(runs) > 1 else None)
    return found


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every mask of ``a`` with every mask of ``b``.

    Args:
        a: (n, H, W) bool.
        b: (m, H, W) bool.

    Returns:
        (n, m) float32 in [0, 1]; 0 where both masks are empty.
    """
    # float32 counts pixels exactly up to 2**24 and takes the fast matrix product.
    pixels = a.shape[1] * a.shape[2]
    first = a.reshape(len(a), pixels).astype(np.float32)
    second = b.reshape(len(b), pixels).astype(np.float32)
    common: np.ndarray = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1)[None] - common
    overlap: np.ndarray = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return overlap


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, width, height) in pixels of the smallest box around a mask (H, W); zeros if empty."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return (
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
    )


def threshold(logits: np.ndarray) -> np.ndarray:
    """Mask logits of any shape to masks: inside is above the mask threshold, 0."""
    positive: np.ndarray = logits > MASK_THRESHOLD
    return positive


def sample(logits: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear samples of a stack of maps on a grid of fractional positions.

    Args:
        logits: (n, h, w) float32; beyond the outermost pixel centres the border value holds.
        rows: (R,) positions in pixels, 0 being the centre of the first row.
        columns: (S,) positions in pixels, likewise.

    Returns:
        (n, R, S) float32.
    """
    # Columns first: they are cheapest while there are few rows.
    return _lerp(_lerp(logits.astype(np.float32, copy=False), columns, 2), rows, 1)


def sample_masks(logits: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Equal to ``threshold(sample(logits, rows, columns))``, computed only where it can be true.

    Between logits that are not positive no sample is positive, so that only the neighbourhood of a
    map's positive logits is sampled. ``rows`` and ``columns`` must not decrease.

    Args:
        logits: (n, h, w) float32.
        rows: (R,) as in :func:`sample`.
        columns: (S,) as in :func:`sample`.

    Returns:
        (n, R, S) bool.
    """
    masks = np.zeros((len(logits), len(rows), len(columns)), bool)
    positive = threshold(logits)
    for out, logit, inside in zip(masks, logits, positive, strict=True):
        x, y, w, h = box(inside)
        if not w:
            continue
        top, bottom = np.searchsorted(rows, (_before(y), _after(y + h, logit.shape[0])))
        left, right = np.searchsorted(columns, (_before(x), _after(x + w, logit.shape[1])))
        across = _lerp(logit[None].astype(np.float32, copy=False), columns[left:right], 2)
        # A band at a time: what lies between the two stays in the processor's cache.
        height = max(_BAND // (right - left), 1) if right > left else 1
        for first in range(top, bottom, height):
            band = slice(first, min(first + height, bottom))
            window = _lerp(across, rows[band], 1)[0]
            np.greater(window, MASK_THRESHOLD, out=out[band, left:right])
    return masks


def _before(first: int) -> float:
    """The position from which samples touch pixel ``first``; everything before pixel 0 does."""
    return first - 1 if first else -np.inf


def _after(end: int, length: int) -> float:
    """The position up to which samples touch the pixel before ``end``."""
    return end if end < length else np.inf


def _lerp(maps: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    last = maps.shape[axis] - 1
    clamped = np.clip(positions, 0, last)
    low = clamped.astype(np.intp)
    shape = [1, 1, 1]
    shape[axis] = len(positions)
    weight = (clamped - low).astype(np.float32).reshape(shape)
    a = maps.take(low, axis)
    b: np.ndarray = maps.take(np.minimum(low + 1, last), axis)
    b -= a
    b *= weight
    b += a
    return b


def _runs(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    if not mask.size:
        return np.zeros(1, np.int64)
    # Where a pixel differs from the one above it, and a column's first from the last one before:
    # nothing is turned over to read column by column, which costs more than all the rest.
    shown = np.flatnonzero(mask.any(1))
    if not len(shown):
        return np.array([mask.size])
    first = max(int(shown[0]) - 1, 0)
    band = mask[first : int(shown[-1]) + 2]
    rows, columns = np.divmod(np.flatnonzero(band[1:] != band[:-1]), width)
    rows += first
    turns = np.flatnonzero(mask[-1, :-1] != mask[0, 1:]) + 1
    edges = np.sort(np.concatenate((columns * height + rows + 1, turns * height)))
    runs = np.diff(np.concatenate(([0], edges, [mask.size])))
    return np.concatenate(([0], runs)) if mask[0, 0] else runs


def _without_empty(runs: np.ndarray) -> np.ndarray:
    """The shortest run lengths of the same mask: no empty run but possibly the first."""
    parity = np.arange(len(runs)) % 2
    kept = runs > 0
    runs, parity = runs[kept], parity[kept]
    if not len(runs):
        return np.zeros(1, np.int64)
    starts = np.flatnonzero(np.concatenate(([True], parity[1:] != parity[:-1])))
    merged: np.ndarray = np.add.reduceat(runs, starts)
    return np.concatenate(([0], merged)) if parity[0] else merged


def _compress(runs: np.ndarray) -> str:
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    digits = np.zeros((len(values), _MOST_DIGITS), np.uint8)
    used = np.zeros(digits.shape, bool)
    active = np.ones(len(values), bool)
    for place in range(_MOST_DIGITS):
        digit = values & 0x1F
        values >>= 5
        more = np.where(digit & 0x10, values != -1, values != 0)
        digits[:, place] = digit + 0x20 * more + 48
        used[:, place] = active
        active &= more
        if not active.any():
            break
    return digits[used].tobytes().decode("ascii")


def _decompress(text: bytes) -> np.ndarray:
    if not text:
        return np.zeros(0, np.int64)
    symbols = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (symbols & 0x20) == 0
    ends = np.flatnonzero(last)
    if (symbols < 0).any() or (symbols > 0x3F).any() or not last[-1]:
        raise DatasetError("a compressed run-length mask is cut short or damaged", _REPAIR)
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    if digits.max() > _MOST_DIGITS:
        raise DatasetError("a compressed run-length mask has an endless run", _REPAIR)
    place = np.arange(len(symbols)) - np.repeat(starts, digits)
    values = np.add.reduceat((symbols & 0x1F) << (5 * place), starts)
    values -= ((symbols[ends] & 0x10) != 0) * (1 << (5 * digits))
    # From the fourth run on the numbers are differences, along odd and even runs apart.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
