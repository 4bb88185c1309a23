"""Latencies and executed instructions as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from rich.table import Table

from mobileinst_deploy.cli.console import in_giga, styled
from mobileinst_deploy.core.text import ms_text, shown
from mobileinst_deploy.measure import latency_table as latency
from mobileinst_deploy.measure.explain import Explanation
from mobileinst_deploy.measure.instructions import InstructionRecord, multiply_accumulates
from mobileinst_deploy.measure.record import LatencyRecord
from mobileinst_deploy.measure.slowdown import CONFIDENCE
from mobileinst_deploy.measure.sustained import SustainedRecord, shown_parts
from mobileinst_deploy.measure.tnn import PRECISIONS, RUNTIME, TnnRecord
from mobileinst_deploy.workflows.against import GateResult
from mobileinst_deploy.workflows.compare import Comparison, Row
from mobileinst_deploy.workflows.history import History
from mobileinst_deploy.workflows.kept import names_of_sets

if TYPE_CHECKING:
    from mobileinst_deploy.training.plan import TrainPlan


def latency_table(records: Sequence[LatencyRecord]) -> Table:
    """Latency on host and phones: a row for each device and T."""
    content = latency.latency_table(records)
    table = Table(
        title=content.title,
        caption="\n".join(content.captions),
        caption_justify="left",
    )
    for name in content.columns:
        left = name == "device"
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in content.rows:
        table.add_row(*row)
    return table


def slowdown_table(found: GateResult) -> Table:
    """What the gate found, for each T."""
    how = "run in turn" if found.interleaved else "measured apart: drift between them is not seen"
    table = Table(
        title=f"Against {found.baseline}, {how}",
        caption=f"An interval of {CONFIDENCE:.0%}; too much is more than {found.fail_above:+.1%}",
    )
    for name in ("T", "change", "from", "to", "clips", ""):
        table.add_column(name, justify="right")
    colours = {"slower": "bold red", "not slower": "green", "unknown": "yellow"}
    for each in found.slowdowns:
        answer = each.answer(found.fail_above)
        cells = (f"{value - 1:+.1%}" for value in (each.ratio, each.low, each.high))
        clips = str(each.comparisons)
        table.add_row(str(each.clip_length), *cells, clips, styled(answer, colours[answer]))
    return table


def comparison_table(found: Comparison) -> Table:
    """Several pairs beside each other, a row for each and its T beneath."""
    timed = found.device != "qemu" and not found.emulated
    sets = names_of_sets(row.precision for row in found.rows if row.precision is not None)
    what = "executed ARM instructions under qemu: no latency"
    if timed:
        what = f"run in turn; ratios are to {found.to}"
    table = Table(
        title=f"{len(found.rows)} on {found.device}, {what}",
        caption="; ".join(
            [f"intervals of {CONFIDENCE:.0%}"] * timed
            + ["MACs and instructions are of the frame graph"]
            + [f"AP on {on}" for on in sets.values() if len(sets) == 1]
        ),
    )
    heads = ["pair", "input", "MACs", "instructions", "ratio", "AP"]
    heads[1:1] = ["T", "ms a frame", "ratio", "from", "to"] if timed else []
    for number, name in enumerate(heads):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in found.rows:
        times = _compared_times(row) if timed else [[]]
        macs = row.macs["frame"]
        share = found.instruction_ratio(row)
        facts = [
            "x".join(map(str, row.entry.pair.config.input_size)),
            "?" if macs is None else in_giga(macs),
            "-" if row.instructions is None else f"{row.instructions['frame']:,}",
            "-" if share is None else f"{share:.3f}",
            _precision(row, sets),
        ]
        for number, cells in enumerate(times):
            table.add_row(*([row.entry.name, *cells, *facts] if not number else ["", *cells]))
    return table


def _precision(row: Row, sets: Mapping[tuple[str, str], str]) -> str:
    """AP; where rows were evaluated on different sets, each says on which."""
    if row.precision is None:
        return "-"
    on = sets[row.precision.on, row.precision.sha256]
    return f"{row.precision.ap:.3f}" + f" on {on}" * (len(sets) > 1)


def _compared_times(row: Row) -> list[list[str]]:
    record = row.record
    if record is None:
        return [[]]
    return [
        [
            str(clip.clip_length),
            ms_text(clip.amortised_ms),
            f"{each.ratio:.3f}",
            # Of the reference to itself, and of too few turns, there is no interval.
            *(
                f"{end:.3f}" if isfinite(each.high) and each.low < each.high else "-"
                for end in (each.low, each.high)
            ),
        ]
        for clip, each in zip(record.clips, row.ratios, strict=True)
    ]


def explanation_table(found: Explanation) -> Table:
    """What differs from the paper's measurement, the weightiest first."""
    here = "an emulated device, which has no latency"
    if found.measured_ms is not None:
        here = (
            f"{ms_text(found.measured_ms)} ms here; what can be estimated makes the paper's figure "
            f"{ms_text(found.estimated_ms)} ms"
        )
    table = Table(title=f"Why not {found.row.ms:g} ms ({found.row.name})? {here}")
    for name in ("what", "in the paper", "here", "slower by", "how that is known"):
        table.add_column(name, overflow="fold")
    for each in found.differences:
        factor = "unknown" if each.factor is None else f"{each.factor:.2f} times"
        known = each.basis + (f": {each.remark}" if each.remark else "")
        table.add_row(each.what, each.paper, each.here, factor, known)
    return table


def history_table(history: History) -> Table:
    """A row for each measurement, the newest last."""
    table = Table(
        title="Measurements kept on this machine",
        caption="".join(f"damaged: {cause}\n" for cause in history.damaged)
        + (f"{history.left_out} older ones are not shown" if history.left_out else ""),
        caption_justify="left",
    )
    # A name says device, runtime and model; it is what `report` takes, so it stays in one piece.
    table.add_column("name", no_wrap=True)
    for name in ("device", "form", "ms a frame at T", ""):
        table.add_column(name, overflow="fold")
    for entry in history.entries:
        record = entry.record
        times = ", ".join(f"{ms_text(c.amortised_ms)} at {c.clip_length}" for c in record.clips)
        table.add_row(
            shown(entry.name),
            record.device.soc or record.device.serial,
            record.pair.form,
            "emulated" if record.emulated else times,
            styled("valid", "green") if record.valid else styled("invalid", "red"),
        )
    return table


def instructions_table(record: InstructionRecord) -> Table:
    """Executed ARM instructions per graph."""
    table = Table(
        title=f"Executed ARM instructions of {record.model_id} by {record.runtime}",
        caption="\n".join(filter(None, (record.note, record.model, record.caveat))),
        caption_justify="left",
    )
    columns = ("graph", "instructions", "of the keyframe", "fmla", "loads", "branches", "bound")
    for name in columns:
        table.add_column(name, justify="left" if name == "graph" else "right")
    for role, value in record.instructions.items():
        name = role if role == "frame" else f"{role}, {record.live_kernels} kernels"
        kinds, least = record.kinds[role], record.bounds[role]
        parts = (multiply_accumulates(kinds), kinds["load"], kinds["branch"])
        shares = (f"{part / value:.1%}" for part in parts)
        share = f"{value / record.instructions['frame']:.3f}"
        table.add_row(name, f"{value:,}", share, *shares, f"{least.cycles:,} ({least.by})")
    return table


def sustained_table(record: SustainedRecord) -> Table:
    """A load over time: a row for each stretch of each T."""
    fps = f"{record.load.fps:g} frames a second"
    if record.device.emulated:
        title = "nothing of time is told"
    elif record.holds is None:
        title = "no T that was tried holds"
    else:
        title = f"T = {record.holds} holds"
    energy = [
        f"T = {c.schedule.clip_length}: {c.millijoules:.0f} mJ a frame, the whole phone's"
        for c in record.clips
        if c.millijoules is not None and not record.device.emulated
    ]
    invalid = [f"INVALID: {why}" for why in record.invalid]
    table = Table(
        title=shown(
            f"{record.pair.model_id} on {record.device.name} by {record.runtime}, {fps}: {title}"
        ),
        caption="\n".join(_sentence(told) for told in (*invalid, *record.notes, *energy)),
        caption_justify="left",
    )
    columns = ("T", "until", "missed", "p50 ms", "p90 ms", "MHz", "Celsius")
    for name in columns:
        table.add_column(name, justify="right")
    for row in shown_parts(record.clips):
        timed = (*row[:2], "-", "-", "-", *row[5:]) if record.device.emulated else row
        table.add_row(*timed)
    return table


def tnn_table(record: TnnRecord) -> Table:
    """What TNN's own test program told: a row for each graph and precision, then for each T."""
    invalid = [f"INVALID: {why}" for why in record.invalid]
    device = record.device
    table = Table(
        title=shown(
            f"{record.pair.model_id} on {device.name} by {RUNTIME}, core {record.core}"
            + (": nothing of time is told" if device.emulated else "")
        ),
        caption="\n".join(_sentence(told) for told in (*invalid, *record.notes)),
        caption_justify="left",
    )
    for name in ("graph", "precision", "runs", "min ms", "mean ms", "max ms"):
        table.add_column(name, justify="left" if name == "graph" else "right")
    rows = [
        (each.role, each.precision, str(each.runs), (each.min_ms, each.mean_ms, each.max_ms))
        for each in record.times
    ] + [
        (f"a frame at T = {length}", name, "", (None, record.amortised_ms(length, name), None))
        for length in record.clip_lengths
        for name in PRECISIONS
    ]
    for graph, precision, runs, times in rows:
        cells = ("" if ms is None else "-" if device.emulated else f"{ms:.2f}" for ms in times)
        table.add_row(graph, f"{precision} ({PRECISIONS[precision]})", runs, *cells)
    return table


def _sentence(text: str) -> str:
    return shown(f"{text[0].upper()}{text[1:]}.", 2000)


def plan_table(plan: TrainPlan) -> Table:
    """A training run that was not begun: one row a stage, the whole in the caption."""
    table = Table(
        title=f"{plan.model}: {plan.parameters / 1e6:.2f} M parameters, {plan.processes} process"
        + ("es" if plan.processes > 1 else "")
    )
    for column in (
        "stage",
        "steps",
        "samples",
        "learning rate",
        "largest size",
        "s a step",
        "hours",
    ):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in plan.stages:
        table.add_row(
            stage.kind,
            f"{stage.iterations:,}" if stage.iterations else f"{stage.epochs:g} epochs",
            f"{stage.samples:,}" if stage.samples else "?",
            ", ".join(f"{lr:.1e} from {at:,.10g}" for at, lr in stage.rates),
            "x".join(map(str, stage.size)),
            f"{stage.step_seconds:.2f}",
            f"{stage.hours:.1f}" if stage.hours is not None else "?",
        )
    table.caption = plan.note
    return table
