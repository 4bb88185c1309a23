"""bench --against: a gate for regressions, with an answer only where noise allows one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.errors import (
    ConfigError,
    MeasurementInvalid,
    MobileInstError,
    VerificationFailed,
)
from mobileinst_deploy.core.pair_files import MANIFEST
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure.record import LatencyRecord, read_record
from mobileinst_deploy.measure.samples import clip_times
from mobileinst_deploy.measure.slowdown import CONFIDENCE, Slowdown, paired, unpaired
from mobileinst_deploy.runtimes import open_host
from mobileinst_deploy.workflows.bench_targets import BenchSettings
from mobileinst_deploy.workflows.host_clips import HostEntry, measure_in_turn


@dataclass(frozen=True)
class GateResult:
    """What the gate found.

    Attributes:
        baseline: What it was held against, for people.
        interleaved: Whether both were run in turn; otherwise they were measured apart.
        fail_above: The share of slowdown that is too much, such as 0.05.
        slowdowns: One entry for each T.
    """

    baseline: str
    interleaved: bool
    fail_above: float
    slowdowns: tuple[Slowdown, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "schema": 1,
            "baseline": self.baseline,
            "interleaved": self.interleaved,
            "fail_above": self.fail_above,
            "slowdowns": [
                {**s.to_dict(), "answer": s.answer(self.fail_above)} for s in self.slowdowns
            ],
        }

    @property
    def failure(self) -> MobileInstError | None:
        """What a script must know, as an error; None when no T became too much slower.

        It is a VerificationFailed when one did, a MeasurementInvalid when noise forbids an answer.
        """
        limit = f"{self.fail_above:.1%}"
        for answer in ("slower", "unknown"):
            for found in self.slowdowns:
                if found.answer(self.fail_above) != answer:
                    continue
                change = (
                    f"at T = {found.clip_length} a frame takes {found.ratio - 1:+.1%}"
                    f" ({found.low - 1:+.1%} to {found.high - 1:+.1%} at {CONFIDENCE:.0%})"
                )
                if answer == "slower":
                    return VerificationFailed(
                        f"it became slower than {self.baseline} by more than {limit}: {change}",
                        "See where with `mobileinst profile` of both pairs",
                    )
                return MeasurementInvalid(
                    f"noise forbids an answer about {limit}: {change} against {self.baseline}",
                    "Close what else is running, or give --seconds and --runs more",
                )
        return None


def parse_share(text: str) -> float:
    """Read ``5%`` or ``0.05`` as a share.

    Raises:
        ConfigError: It is neither, or not from 0 to 100 %.
    """
    try:
        number = text.removesuffix("%")
        value = float(number) / (100 if number != text else 1)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise ConfigError(f"{text[:40]!r} is no share from 0% to 100%", "Use --fail-above 5%")
    return value


@places(0)
def open_baseline(path: Path) -> ExportBundle | LatencyRecord:
    """A baseline: a pair's folder, to be run beside; or a latency record, measured before.

    Raises:
        InputError: It is neither, or broken.
    """
    if path.is_dir() and (path / MANIFEST).exists():
        return load_bundle(path)
    if path.is_dir():
        raise ConfigError(
            f"{path} is neither a pair nor a latency record",
            "Give the folder of a pair, or a latency.json",
        )
    return read_record(path)


def check_comparable(pair: ExportBundle, baseline: ExportBundle | LatencyRecord) -> None:
    """Refuse a baseline of another model or size before anything is measured.

    Raises:
        ConfigError: They differ in what was exported, so that a slowdown would mean nothing.
    """
    theirs: Sequence[object]
    if isinstance(baseline, LatencyRecord):
        theirs = (baseline.pair.model_id, baseline.pair.input_size, baseline.pair.num_queries)
        if baseline.emulated:
            raise ConfigError(
                "the baseline was measured on an emulated device, which has no latency",
                "Give a record of a real device",
            )
    else:
        theirs = (baseline.model_id, baseline.config.input_size, baseline.config.num_queries)
    mine = (pair.model_id, pair.config.input_size, pair.config.num_queries)
    for name, own, other in zip(("model", "input size", "N"), mine, theirs, strict=True):
        if own != other:
            raise ConfigError(
                f"the baseline is of another pair: its {name} is {other!r} and this one's {own!r}",
                "Give a baseline of the same model",
            )


def check_measured(names: Sequence[str], baseline: LatencyRecord) -> None:
    """Refuse before anything is measured a baseline of a device that will not be.

    Args:
        names: Of the targets: ``cpu``, ``adb:SERIAL``.
        baseline: What was measured before.

    Raises:
        ConfigError: Its device is none of them.
    """
    if baseline.device.name not in names:
        raise ConfigError(
            f"the baseline was measured on {baseline.device.name}, and this is for"
            f" {', '.join(names)}",
            "Measure that device, or give a baseline of this one",
        )


def of_the_same_device(
    records: Sequence[LatencyRecord], baseline: LatencyRecord
) -> LatencyRecord | None:
    """The fresh record of the baseline's device; None where that one failed."""
    return next((r for r in records if r.device.name == baseline.device.name), None)


def against_record(
    record: LatencyRecord, baseline: LatencyRecord, fail_above: float, name: str
) -> GateResult:
    """Hold a fresh measurement against one made before, on the same device in the same way.

    Raises:
        ConfigError: They were made on other devices, by other runtimes or protocols.
        MeasurementInvalid: One of them must not be believed.
    """
    for what, mine, theirs in (
        ("device", record.device.serial, baseline.device.serial),
        ("chip", record.device.soc, baseline.device.soc),
        ("runtime", record.runtime.split(" ")[0], baseline.runtime.split(" ")[0]),
        ("protocol", record.protocol.name, baseline.protocol.name),
        (
            "number of live kernels",
            record.conditions.live_kernels,
            baseline.conditions.live_kernels,
        ),
    ):
        if mine != theirs:
            raise ConfigError(
                f"the baseline was measured otherwise: its {what} is {theirs!r} and here {mine!r}",
                "Measure the baseline again in the same way",
            )
    if record.emulated or not (record.valid and baseline.valid):
        which = "this measurement" if record.emulated or not record.valid else "the baseline"
        why = "an emulated device has no latency"
        if not record.emulated:
            why = (record.invalid or baseline.invalid)[0]
        raise MeasurementInvalid(f"{which} must not be believed: {why}", "Measure again")
    old = {s.clip_length: s for s in baseline.schedules}
    shared = [s for s in record.schedules if s.clip_length in old]
    if not shared:
        raise ConfigError(
            "the baseline has no such T",
            f"Use -T {','.join(map(str, old))}",
        )
    return GateResult(
        name,
        False,
        fail_above,
        tuple(
            unpaired(s.clip_length, clip_times(old[s.clip_length]), clip_times(s)) for s in shared
        ),
    )


def against_pair(
    pair: ExportBundle,
    baseline: ExportBundle,
    settings: BenchSettings,
    fail_above: float,
    runtime: str = "onnxruntime",
    *,
    progress: Progress = silent,
) -> GateResult:
    """Run both pairs on this machine in turn, clip by clip, and compare neighbours.

    Who goes first alternates, so that neither gains by it.

    Raises:
        ConfigError: Live kernels that one of them cannot take.
        BundleError: A graph or the golden data cannot be loaded.
        DeviceError: The runtime failed.
    """
    entries = [
        HostEntry(open_host(each, runtime, progress=progress), each, settings.live(each))
        for each in (baseline, pair)
    ]
    theirs, mine = measure_in_turn(
        entries, settings.protocol, settings.clip_lengths, progress=progress
    )
    slowdowns = tuple(
        paired(new.clip_length, clip_times(old), clip_times(new))
        for old, new in zip(theirs.schedules, mine.schedules, strict=True)
    )
    return GateResult(str(baseline.folder), True, fail_above, slowdowns)
