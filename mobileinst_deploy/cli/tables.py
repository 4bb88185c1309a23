"""Records as tables for people and rows for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from mobileinst_deploy.core.records import ParityReport
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.core.zoo import load_model_toml, zoo_ids
from mobileinst_deploy.measure import latency_table as latency
from mobileinst_deploy.measure.instructions import InstructionRecord
from mobileinst_deploy.measure.record import LatencyRecord
from mobileinst_deploy.measure.slowdown import CONFIDENCE
from mobileinst_deploy.pair.onnx_file import GraphSummary
from mobileinst_deploy.workflows.against import GateResult
from mobileinst_deploy.workflows.history import History


def zoo_rows() -> list[dict[str, Any]]:
    """One JSON row per zoo model: id, backbone, input, classes, parameters, MACs, weights."""
    from mobileinst_deploy.network.macs import count_macs

    rows = []
    for model_id in zoo_ids():
        entry = load_model_toml(model_id)
        macs = count_macs(entry.config)
        rows.append(
            {
                "id": entry.id,
                "backbone": entry.config.backbone,
                "input_size": list(entry.config.input_size),
                "classes": entry.config.num_classes,
                "parameters": sum(macs.parameters.values()),
                "macs": macs.total,
                "trained_weights": entry.weights is not None,
                "summary": entry.summary,
            }
        )
    return rows


def models_table(rows: list[dict[str, Any]]) -> Table:
    """The zoo for people."""
    table = Table(title="The zoo")
    for name in ("id", "backbone", "input", "classes", "parameters", "MACs", "weights"):
        right = name in ("classes", "parameters", "MACs")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row["id"],
            row["backbone"],
            "x".join(map(str, row["input_size"])),
            str(row["classes"]),
            f"{row['parameters'] / 1e6:.2f} M",
            _giga(row["macs"]),
            "[green]trained[/]" if row["trained_weights"] else "[yellow]none: random[/]",
        )
    return table


def parity_table(report: ParityReport) -> Table:
    """The ladder and the tensors' differences."""
    table = Table(
        title=escape(f"Parity of {report.model_id} on {report.device} by {report.runtime}"),
        caption=f"Reference: {report.reference}. "
        + ("" if report.trained else "RANDOM weights: numbers are compared, masks mean nothing."),
    )
    table.add_column("rung")
    table.add_column("")
    table.add_column("what was found", overflow="fold")
    for check in report.checks:
        table.add_row(check.rung, _mark(check.passed), escape(check.detail))
    for tensor in report.tensors:
        table.add_row(
            f"  {tensor.graph}",
            _mark(tensor.passed),
            f"{tensor.tensor}: max abs {tensor.max_abs:.2e}, max rel {tensor.max_rel:.2e}, "
            f"cosine {tensor.cosine:.8f}",
        )
    return table


def latency_table(records: Sequence[LatencyRecord]) -> Table:
    """Latency on host and phones: a row for each device and clip length."""
    content = latency.latency_table(records)
    table = Table(
        title=escape(content.title),
        caption=escape("\n".join(content.captions)),
        caption_justify="left",
    )
    for name in content.columns:
        left = name == "device"
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in content.rows:
        table.add_row(*map(escape, row))
    return table


def slowdown_table(found: GateResult) -> Table:
    """What the gate found, for each clip length."""
    how = "run in turn" if found.interleaved else "measured apart: drift between them is not seen"
    table = Table(
        title=escape(f"Against {shown(found.baseline)}, {how}"),
        caption=f"An interval of {CONFIDENCE:.0%}; too much is more than {found.fail_above:+.1%}",
    )
    for name in ("T", "change", "from", "to", "clips", ""):
        table.add_column(name, justify="right")
    colours = {"slower": "bold red", "not slower": "green", "unknown": "yellow"}
    for each in found.slowdowns:
        answer = each.answer(found.fail_above)
        cells = (f"{value - 1:+.1%}" for value in (each.ratio, each.low, each.high))
        clips = str(each.comparisons)
        table.add_row(str(each.clip_length), *cells, clips, f"[{colours[answer]}]{answer}[/]")
    return table


def history_table(history: History) -> Table:
    """A row for each measurement, the newest last."""
    table = Table(
        title="Measurements kept on this machine",
        caption="".join(f"damaged: {escape(shown(cause))}\n" for cause in history.damaged)
        + (f"{history.left_out} older ones are not shown" if history.left_out else ""),
        caption_justify="left",
    )
    for name in ("name", "device", "model", "form", "runtime", "ms a frame at T", ""):
        table.add_column(name, overflow="fold")
    for entry in history.entries:
        record = entry.record
        times = ", ".join(f"{c.amortised_ms:.2f} at {c.clip_length}" for c in record.clips)
        table.add_row(
            escape(shown(entry.name)),
            escape(shown(f"{record.device.serial} {record.device.soc or ''}")),
            escape(shown(record.pair.model_id)),
            record.pair.form,
            escape(shown(record.runtime)),
            "emulated" if record.emulated else times,
            "[green]valid[/]" if record.valid else "[red]invalid[/]",
        )
    return table


def instructions_table(record: InstructionRecord) -> Table:
    """Executed ARM instructions per graph."""
    table = Table(
        title=escape(f"Executed ARM instructions of {record.model_id} by {record.runtime}"),
        caption=record.note,
    )
    for name in ("graph", "instructions", "of the keyframe", "equal runs"):
        table.add_column(name, justify="left" if name == "graph" else "right")
    for role, value in record.instructions.items():
        name = role if role == "frame" else f"{role}, {record.live_kernels} kernels"
        share = f"{value / record.instructions['frame']:.3f}"
        table.add_row(name, f"{value:,}", share, str(record.equal_runs[role]))
    return table


def summary_json(summary: GraphSummary) -> dict[str, Any]:
    """A graph's description as JSON."""
    return asdict(summary)


def summary_table(name: str, summary: GraphSummary) -> Table:
    """A graph's description for people."""
    table = Table(title=escape(name), show_header=False)
    table.add_column("what", style="bold")
    table.add_column("value", overflow="fold")
    for kind, tensors in (("input", summary.inputs), ("output", summary.outputs)):
        for tensor in tensors:
            shape = " x ".join(map(str, tensor.shape))
            table.add_row(kind, escape(f"{tensor.name}: {tensor.dtype} {shape}"))
    assumed = ", ".join(f"{axis} = {length}" for axis, length in summary.free_axes.items())
    macs = "unknown: its shapes are not fixed" if summary.macs is None else _giga(summary.macs)
    table.add_row("MACs", escape(macs + (f" at {assumed}" if assumed else "")))
    table.add_row("parameters", f"{summary.parameters / 1e6:.2f} M")
    table.add_row("size", f"{summary.bytes / 1e6:.1f} MB, opset {summary.opset}")
    table.add_row("operators", escape(", ".join(f"{op} {n}" for op, n in summary.ops.items())))
    for key, value in summary.metadata.items():
        if key != "classes":
            table.add_row(escape(key), escape(value))
    return table


def _mark(passed: bool) -> str:
    return "[green]ok[/]" if passed else "[bold red]FAIL[/]"


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M"
