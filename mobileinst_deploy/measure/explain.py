"""Why not the paper's milliseconds? What differs from its protocol, by estimated weight.

Every estimate says what it rests on: computed from the models, measured here, or not known at all.
What is not known is not multiplied. A factor above 1 makes a frame slower here than there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mobileinst_deploy.measure.device import PAPER_SOC, THERMAL_STATUS
from mobileinst_deploy.measure.paper import ROWS, PaperRow
from mobileinst_deploy.measure.record import LatencyRecord

Basis = Literal["computed", "measured", "unknown"]

#: Multiply-accumulates of the paper's models by padded size (its Tables 4 and 6, this project's
#: ledger): a picture of 640x896, a frame of 384x640.
_PAPER_MACS = {(640, 896): 24.37e9, (384, 640): 10.49e9}
#: The prime core of a Snapdragon 778G, kHz.
_PAPER_KHZ = 2_400_000
#: Executed ARM instructions of topformer-vis in ncnn, fp16 over fp32 (docs/performance.md).
_HALF_OVER_FLOAT = 701 / 1207


@dataclass(frozen=True)
class Difference:
    """One thing that differs from the paper's measurement.

    Attributes:
        what: Its name.
        paper: How it was there.
        here: How it is here.
        factor: By how much it makes a frame slower, estimated; None where nobody can say.
        basis: What the estimate rests on.
        remark: What else is known.
    """

    what: str
    paper: str
    here: str
    factor: float | None
    basis: Basis
    remark: str = ""


@dataclass(frozen=True)
class Explanation:
    """A measurement beside the nearest of the paper's.

    Attributes:
        row: The paper's.
        measured_ms: Per frame at the row's T, or the nearest T measured; None on an emulator.
        differences: Those with the largest estimated weight first, then those of unknown weight.
    """

    row: PaperRow
    measured_ms: float | None
    differences: tuple[Difference, ...]

    @property
    def estimated_ms(self) -> float:
        """What the paper's figure becomes by all factors that can be estimated, ms."""
        known = [d.factor for d in self.differences if d.factor is not None]
        return self.row.ms * math.prod(known)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "paper": asdict(self.row),
            "measured_ms": self.measured_ms,
            "estimated_ms": None if self.measured_ms is None else self.estimated_ms,
            "differences": [asdict(d) for d in self.differences],
        }


def explain(record: LatencyRecord, macs: float | None) -> Explanation:
    """Set a measurement beside the paper's protocol.

    Args:
        record: The measurement.
        macs: Multiply-accumulates of the pair's frame graph, if they are known.
    """
    row = _nearest(record)
    clip = min(record.clips, key=lambda clip: abs(clip.clip_length - row.clip_length))
    found = [d for d in _differences(record, row, macs, clip.clip_length) if d.paper != d.here]
    order = sorted(
        found,
        key=lambda d: -math.inf if d.factor is None else abs(math.log(d.factor)),
        reverse=True,
    )
    return Explanation(row, None if record.emulated else clip.amortised_ms, tuple(order))


def _nearest(record: LatencyRecord) -> PaperRow:
    """The row whose size is nearest, and of those the one whose T was measured."""
    pixels = math.prod(record.pair.input_size)
    lengths = record.conditions.clip_lengths
    return min(
        ROWS,
        key=lambda row: (
            abs(math.log(math.prod(row.size) / pixels)),
            row.clip_length not in lengths,
            row.clip_length,
        ),
    )


def _differences(
    record: LatencyRecord, row: PaperRow, macs: float | None, clip_length: int
) -> Iterator[Difference]:
    device, conditions = record.device, record.conditions
    theirs = _PAPER_MACS[row.size]
    yield Difference(
        "model and size",
        f"{row.backbone}, {_size(row.size)}, {theirs / 1e9:.2f} GMAC",
        f"{record.pair.model_id}, {_size(record.pair.input_size)}"
        + ("" if macs is None else f", {macs / 1e9:.2f} GMAC"),
        None if macs is None else macs / theirs,
        "unknown" if macs is None else "computed",
        "as if a multiply-accumulate cost the same in both",
    )
    if device.emulated:
        yield Difference("device", PAPER_SOC, "emulated", None, "unknown", "it has no latency")
    else:
        yield Difference("chip", PAPER_SOC, device.soc or "unknown", None, "unknown")
        yield from _clock(record)
    runtime = record.runtime.split(" ")[0]
    yield Difference("runtime", "TNN", runtime, None, "unknown", "TNN was never measured here")
    yield Difference(
        "precision",
        "fp32 by its words; TNN takes fp16 where the chip has it",
        record.pair.precision,
        None,
        "unknown",
        f"had it been fp16: {1 / _HALF_OVER_FLOAT:.2f} times, by instructions in ncnn",
    )
    yield Difference("T", str(row.clip_length), str(clip_length), *_reuse(record, row, clip_length))
    n = record.pair.num_queries
    live = conditions.live_kernels
    yield Difference(
        "kernels in reuse frames",
        f"all {n}",
        f"{'all ' if live == n else ''}{live}",
        None,
        "unknown",
    )
    yield Difference("statistic", "not said", record.protocol.statistic, None, "unknown")
    status = record.state_after.thermal_status
    if status is not None:
        yield Difference(
            "thermal state", "not said", THERMAL_STATUS[status], None, "unknown",
            "" if status == 0 else "Android throttles",
        )  # fmt: skip
    if not device.emulated:
        clip = next(c for c in record.clips if c.clip_length == clip_length)
        yield Difference(
            "preparing the input",
            "inside the timer, if measured by TNN's script",
            "inside" if record.protocol.with_preparation else "apart",
            None
            if record.protocol.with_preparation
            else clip.amortised_ms / (clip.amortised_ms + clip.prepare_ms),
            "measured",
        )


def _clock(record: LatencyRecord) -> Iterator[Difference]:
    core = record.conditions.core
    known = None if core is None else record.state_before.core(core)
    highest = known.max_khz if known else None
    seen = [s.khz for schedule in record.schedules for s in schedule.samples if s.khz is not None]
    if highest is not None:
        yield Difference(
            "core's highest clock",
            f"{_PAPER_KHZ // 1000} MHz, if it was the prime core",
            f"{highest // 1000} MHz",
            _PAPER_KHZ / highest,
            "computed",
            "as if every clock did the same work; a small core does several times less",
        )
    if seen and highest is not None:
        under_load = float(np.median(seen))
        yield Difference(
            "clock under load",
            "not said",
            f"{under_load / 1000:.0f} MHz",
            highest / under_load,
            "measured",
        )
    elif not seen:
        yield Difference("clock under load", "not said", "not told", None, "unknown")


def _reuse(
    record: LatencyRecord, row: PaperRow, clip_length: int
) -> tuple[float | None, Basis, str]:
    """What another T makes, by the keyframes and reuse frames measured."""
    with_reuse = [clip for clip in record.clips if clip.reuse is not None]
    if record.emulated or not with_reuse or row.clip_length == clip_length:
        return None, "unknown", ""
    clip = with_reuse[-1]
    key, reuse = clip.keyframe.headline, clip.reuse.headline if clip.reuse else 0.0

    def frame(length: int) -> float:
        return (key + (length - 1) * reuse) / length

    return frame(clip_length) / frame(row.clip_length), "measured", ""


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
