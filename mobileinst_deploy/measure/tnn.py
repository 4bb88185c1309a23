"""The record of what TNN's own test program told: the form of ``tnn.json``, schema 1.

The paper measured with TNN. Its test program tells the smallest, mean and largest time of a graph,
no single one, and compares no output with anything. So this is no
:class:`~mobileinst_deploy.measure.record.LatencyRecord`: there are no samples to judge, and what
cannot be known is among the notes. Of an emulated device the times lie under ``emulated_times``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.version import __version__
from mobileinst_deploy.measure.device import DeviceFacts, DeviceState
from mobileinst_deploy.measure.paper import Comparison
from mobileinst_deploy.measure.protocol import Protocol
from mobileinst_deploy.measure.record import PairFacts
from mobileinst_deploy.measure.validity import Measured, judge

SCHEMA = 1
RUNTIME = "TNN (the user's program)"
#: ``-pr``: float32, and TNN's own default, which is 16 bits where build and chip have them.
TnnPrecision = Literal["HIGH", "AUTO"]
PRECISIONS: dict[TnnPrecision, str] = {"HIGH": "float32", "AUTO": "fp16 where it can"}

_NOTES = (
    "TNN's test program told the times; it tells no single run, so nothing is known of their"
    " spread, and a clock that fell meanwhile is not seen",
    "its times hold the conversion of inputs and outputs, and its inputs are noise of its own",
    "no output was compared: whether the converted graphs are still the network is not known",
)


@dataclass(frozen=True)
class TnnTimes:
    """What the program told of one graph in one precision, ms.

    Attributes:
        role: Which graph.
        precision: TNN's name of it.
        runs: How many were timed.
        min_ms: The fastest.
        mean_ms: Their mean.
        max_ms: The slowest.
    """

    role: Role
    precision: TnnPrecision
    runs: int
    min_ms: float
    mean_ms: float
    max_ms: float


@dataclass(frozen=True)
class TnnRecord:
    """A pair timed by TNN's own test program on a phone.

    Attributes:
        measured_at: When it ended, UTC, ISO 8601.
        pair: What was measured, as it was before the user converted it.
        device: Where.
        protocol: ``tnn-script``, on one core.
        core: Which.
        clip_lengths: Every T.
        live_kernels: Kernels that the converted mask-head graph takes; None where it did not run.
        program_sha256: Of the program and its libraries.
        models_sha256: By file name, of the converted graphs.
        times: Of each graph in each precision.
        before: The device just before.
        after: Just after.
        comparison: With the paper's figures.
        caveat: Of the pair, or None.
    """

    measured_at: str
    pair: PairFacts
    device: DeviceFacts
    protocol: Protocol
    core: int
    clip_lengths: tuple[int, ...]
    live_kernels: int | None
    program_sha256: str
    models_sha256: Mapping[str, str]
    times: tuple[TnnTimes, ...]
    before: DeviceState
    after: DeviceState
    comparison: Comparison
    caveat: str | None = None

    def amortised_ms(self, clip_length: int, precision: TnnPrecision) -> float:
        """A keyframe and T-1 reuse frames, by their means, per frame (paper, table 4)."""
        mean = {t.role: t.mean_ms for t in self.times if t.precision == precision}
        reuse = (clip_length - 1) * mean["mask_head"] if clip_length > 1 else 0.0
        return (mean["frame"] + reuse) / clip_length

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why it must not be believed; empty when it may."""
        return judge(self.protocol, self._measured).invalid

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        beside = self.comparison.sentence
        if self.comparison.rows:
            beside = (
                "model, size, SoC and runtime are the paper's; whether it took TNN's default"
                " precision or float32, and which core, the paper does not say"
            )
        conditions = judge(self.protocol, self._measured).notes
        return (*conditions, *_NOTES, beside, *filter(None, (self.caveat,)))

    @property
    def _measured(self) -> Measured:
        return Measured(self.device, self.before, self.after, RUNTIME, self.core, (self.core,), ())

    def to_dict(self) -> dict[str, Any]:
        """The form of ``tnn.json``."""
        told = {
            "times": [asdict(times) for times in self.times],
            "clips": [
                {
                    "clip_length": length,
                    "precision": precision,
                    "amortised_ms": self.amortised_ms(length, precision),
                }
                for length in self.clip_lengths
                for precision in PRECISIONS
            ],
        }
        emulated = self.device.emulated
        return {
            "schema": SCHEMA,
            "mobileinst": __version__,
            "measured_at": self.measured_at,
            "pair": asdict(self.pair),
            "device": self.device.to_dict(),
            "emulated": emulated,
            "runtime": RUNTIME,
            "program_sha256": self.program_sha256,
            "models_sha256": dict(self.models_sha256),
            "protocol": asdict(self.protocol),
            "conditions": {
                "clip_lengths": list(self.clip_lengths),
                "live_kernels": self.live_kernels,
                "threads": 1,
                "core": self.core,
            },
            "valid": not self.invalid,
            "invalid": list(self.invalid),
            "notes": list(self.notes),
            "paper": [asdict(row) for row in self.comparison.rows],
            **({"emulated_times": told["times"]} if emulated else told),
            "state_before": self.before.to_dict(),
            "state_after": self.after.to_dict(),
        }
