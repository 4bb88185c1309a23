"""Is one pair slower than another? An answer with an interval of confidence, or none.

Nothing is assumed of how times are distributed: an interval of a median is made of order statistics
(the binomial distribution says which), so the same samples always give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import binom

Answer = Literal["slower", "not slower", "unknown"]

#: Of each interval. Several T are asked about at once, so 95 % would cry wolf too often.
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Slowdown:
    """How much slower frames became at one T.

    Attributes:
        clip_length: T.
        ratio: Time of an average frame over the baseline's; 1.05 is 5 % slower.
        low: Lower end of its interval.
        high: Upper end.
        comparisons: Pairs of clips, or samples of the smaller side, behind it.
    """

    clip_length: int
    ratio: float
    low: float
    high: float
    comparisons: int

    def answer(self, fail_above: float) -> Answer:
        """Whether it is slower by more than a share such as 0.05, as far as noise lets one say."""
        limit = 1 + fail_above
        if self.low > limit:
            return "slower"
        return "not slower" if self.high <= limit else "unknown"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        high = self.high if np.isfinite(self.high) else None  # JSON knows no infinity
        return {**asdict(self), "high": high, "confidence": CONFIDENCE}


def paired(clip_length: int, baseline: Sequence[float], candidate: Sequence[float]) -> Slowdown:
    """Compare clips that were run in turn, so that both met the same heat and neighbours.

    Args:
        clip_length: T.
        baseline: Time of each clip, ms.
        candidate: Time of the clip of the other pair that was run right beside it, ms.
    """
    ratios = np.log(np.asarray(candidate) / np.asarray(baseline))
    low, high = median_interval(ratios)
    ratio, least, most = (float(np.exp(v)) for v in (np.median(ratios), low, high))
    return Slowdown(clip_length, ratio, least, most, len(ratios))


def unpaired(clip_length: int, baseline: Sequence[float], candidate: Sequence[float]) -> Slowdown:
    """Compare two measurements made apart: the interval holds each one's noise, and no drift.

    Args:
        clip_length: T.
        baseline: Time of each of its clips, ms.
        candidate: Time of each clip of the other measurement, ms.
    """
    old, new = np.asarray(baseline), np.asarray(candidate)
    ratio = float(np.median(new) / np.median(old))
    count = min(len(old), len(new))
    (old_low, old_high), (new_low, new_high) = median_interval(old), median_interval(new)
    if not np.isfinite([old_low, old_high, new_low, new_high]).all():
        return Slowdown(clip_length, ratio, 0.0, np.inf, count)
    return Slowdown(clip_length, ratio, new_low / old_high, new_high / old_low, count)


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Bounds that hold the median of what the values were drawn from, at :data:`CONFIDENCE`.

    Of fewer than eight values there are none: everything is possible.
    """
    ordered = np.sort(values)
    n = len(ordered)
    # At most this many values lie below the median, but for one time in 200.
    rank = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    if rank == 0:
        return -np.inf, np.inf
    return float(ordered[rank - 1]), float(ordered[n - rank])
