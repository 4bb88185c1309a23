"""Records as tables for people and rows for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from mobileinst_deploy.core.records import BenchReport, ParityReport
from mobileinst_deploy.core.zoo import load_model_toml, zoo_ids
from mobileinst_deploy.pair.onnx_file import GraphSummary


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


def peer_rows() -> list[dict[str, Any]]:
    """One JSON row per network of the paper's Tables 1 and 2: its cost, and the paper's figures."""
    from mobileinst_deploy.network.macs import count_network_macs
    from mobileinst_deploy.network.peers.catalogue import NOT_BUILT, PEERS

    rows: list[dict[str, Any]] = []
    for peer in PEERS.values():
        network = peer.weightless()
        frame = count_network_macs(network)
        reuse = count_network_macs(network, "mask_head")
        rows.append(
            {
                "id": peer.id,
                "input_size": list(peer.input_size),
                "parameters": sum(p.numel() for p in network.parameters()),
                "macs": frame.total,
                "reuse_macs": reuse.total,
                "paper": None if peer.published is None else asdict(peer.published),
                "checkpoints": peer.source,
            }
        )
    return rows + [{"id": name, "not_built": why} for name, why in NOT_BUILT.items()]


def peers_table(rows: list[dict[str, Any]]) -> Table:
    """The peers for people."""
    table = Table(
        title="Peers of the paper's tables",
        caption="MACs are counted here. ms and AP are the paper's: one core of a Snapdragon 778G, "
        "TNN; COCO test-dev, or YouTube-VIS 2019. Nothing of the paper's was measured here.",
    )
    for name in ("id", "input", "parameters", "MACs", "of a reuse frame", "paper ms", "paper AP"):
        table.add_column(name, justify="left" if name == "id" else "right", no_wrap=True)
    for row in rows:
        if "not_built" in row:
            continue
        paper = row["paper"] or {}
        table.add_row(
            row["id"],
            "x".join(map(str, row["input_size"])),
            f"{row['parameters'] / 1e6:.2f} M",
            _giga(row["macs"]),
            _giga(row["reuse_macs"]),
            f"{paper['ms']:g}" if paper else "-",
            f"{paper['ap']:g}" if paper else "-",
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


def latency_table(report: BenchReport) -> Table:
    """Amortised latency for each clip length; an emulated device's times are not shown."""
    device = f"{report.device.get('name')} ({report.device.get('processor', '')})"
    height, width = report.input_size
    table = Table(
        title=escape(f"{report.model_id} {height}x{width} on {device}"),
        caption=". ".join((*report.notes, *(f"INVALID: {reason}" for reason in report.invalid))),
    )
    table.add_column("T", justify="right")
    for name in ("amortised", "keyframe p50", "p90", "MAD", "reuse p50", "p90", "worst", "runs"):
        table.add_column(name, justify="right")
    for clip in report.clips:
        cells = [str(clip.clip_length)]
        if report.emulated:
            cells += ["emulated"] * 7
        else:
            reuse = clip.reuse
            cells += [
                f"[bold]{clip.amortised_ms:.2f} ms[/]",
                *(f"{v:.2f}" for v in (clip.keyframe.p50, clip.keyframe.p90, clip.keyframe.mad)),
                f"{reuse.p50:.2f}" if reuse is not None else "-",
                f"{reuse.p90:.2f}" if reuse is not None else "-",
                f"{clip.worst_ms:.2f}",
            ]
        runs = len(clip.keyframe.samples_ms)
        cells.append(f"{runs}+{len(clip.reuse.samples_ms) if clip.reuse is not None else 0}")
        table.add_row(*cells)
    return table


def instructions_table(document: Mapping[str, Any]) -> Table:
    """Executed ARM instructions per graph."""
    table = Table(
        title=f"Executed ARM instructions of {document['model_id']}", caption=document["note"]
    )
    for name in ("graph", "instructions", "of the keyframe", "equal runs"):
        table.add_column(name, justify="left" if name == "graph" else "right")
    counts = document["instructions"]
    for role, value in counts.items():
        name = role if role == "frame" else f"{role}, {document['live_kernels']} kernels"
        share = f"{value / counts['frame']:.3f}"
        table.add_row(name, f"{value:,}", share, str(document["equal_runs"][role]))
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
