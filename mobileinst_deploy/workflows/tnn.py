"""tnn: let TNN's own test program, which the user built, time a pair that the user converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.core.errors import MeasurementInvalid
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.measure.paper import compare_with_paper
from mobileinst_deploy.measure.protocol import choose_core
from mobileinst_deploy.measure.record import pair_facts
from mobileinst_deploy.measure.tnn import PRECISIONS, TnnRecord
from mobileinst_deploy.phone.adb import choose_devices
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import read_phone
from mobileinst_deploy.phone.tnn import TnnVisit, read_tnn_folder
from mobileinst_deploy.workflows.bench_targets import BenchSettings
from mobileinst_deploy.workflows.results import Kept, not_believed, pair_place


@dataclass(frozen=True)
class TnnResult:
    """A pair timed by TNN's test program.

    Attributes:
        record: What was told.
        kept: What became of ``tnn.json``.
    """

    record: TnnRecord
    kept: Kept

    @property
    def failure(self) -> MeasurementInvalid | None:
        """Why it must not be believed, as an error; None when it may."""
        return not_believed(
            f"what TNN told on {self.record.device.name}",
            self.record.invalid,
            f"Measure again when that no longer holds; it is in {self.kept.path}",
        )


def bench_tnn(
    pair: ExportBundle,
    folder: Path,
    settings: BenchSettings,
    *,
    serials: Sequence[str] = (),
    report: Path | None = None,
    progress: Progress = silent,
) -> TnnResult:
    """Time a converted pair on one core of a phone, each graph in float32 and as TNN would have it.

    Args:
        pair: What was converted.
        folder: The user's; see :func:`~mobileinst_deploy.phone.tnn.read_tnn_folder`.
        settings: Warm-ups, runs, every T, the core, and when a program that hangs is killed.
        serials: Which phone; none means the only one.
        report: A file or folder in place of ``results/<device>-tnn-<form>/tnn.json``.
        progress: Told of each step.

    Raises:
        InputError: The folder lacks something, or is of another pair.
        DeviceError: No such phone, or the program failed there.
        OutputError: ``report`` cannot be written.
    """
    # At T = 1 there is no reuse frame.
    roles = ROLES[:1] if max(settings.clip_lengths) == 1 else ROLES
    given = read_tnn_folder(folder, {role: pair.graphs[role].spec for role in roles})
    (chosen,) = choose_devices(serials)
    device = AdbDevice(chosen.serial)
    place = pair_place("tnn", pair, f"adb:{chosen.serial}", "tnn", report)
    place.check()
    used = replace(settings.protocol, pinned=True)
    asked = [(role, precision) for role in roles for precision in PRECISIONS]
    with TnnVisit(device, given, progress) as visit:
        core = choose_core(visit.state, settings.core)
        times = []
        for done, (role, precision) in enumerate(asked):
            progress(f"TNN: {role}, {precision}", done, len(asked))
            times.append(
                visit.time(
                    role,
                    precision,
                    core=core,
                    warmups=used.warmups,
                    runs=used.runs,
                    limit_s=settings.limit_s,
                )
            )
        _, after = read_phone(device)
    n, live = pair.config.num_queries, given.live_kernels
    also = [] if live in (None, n) else [f"reuse frames with {live} of {n} kernels"]
    record = TnnRecord(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        pair=pair_facts(pair),
        device=visit.facts,
        protocol=used,
        core=core,
        clip_lengths=settings.clip_lengths,
        live_kernels=live,
        program_sha256=given.sha256,
        models_sha256={
            content.name: content.sha256
            for model in given.models.values()
            for content in (model.proto, model.weights)
        },
        times=tuple(times),
        before=visit.state,
        after=after,
        comparison=compare_with_paper(pair.config, visit.facts, also),
        caveat=pair.caveat,
    )
    return TnnResult(record, place.keep(record.to_dict()))
