#!/usr/bin/env python3
"""Measure every form of a model's pair, and print the rows of docs/performance.md.

    scripts/performance.py MODEL FOLDER --pictures D [--forms plain,optimized] [--kernels 10,100]
    scripts/performance.py MODEL FOLDER --annotations F --images D     also AP on COCO's pictures

The forms are made in FOLDER when they are not there: plain (as exported), optimized, half (weights
stored as float16), int8 (calibrated on --pictures). What was measured is kept in
FOLDER/performance.json, so that an interrupted run goes on where it was. Host times are processor
time on one thread, the forms in turn within one process, each as the median ratio to plain.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.device.prepare import prepare_bundle
from mobileinst_deploy.device.qemu import QemuRunner
from mobileinst_deploy.evaluate import evaluate_pictures
from mobileinst_deploy.export import export_model
from mobileinst_deploy.files import write_json
from mobileinst_deploy.loading import load_model
from mobileinst_deploy.optimize.beside_int8 import WinogradBesideInt8
from mobileinst_deploy.optimize.pair import optimize_pair
from mobileinst_deploy.ort import CpuRunner, open_session
from mobileinst_deploy.quantize import halve_pair, quantize_pair, read_pictures
from mobileinst_deploy.specs import ROLES
from mobileinst_deploy.subject import open_subject
from mobileinst_deploy.verify import verify_bundle

_ROUNDS = 15


def make_forms(
    model: str, folder: Path, wanted: list[str], pictures: Path | None
) -> dict[str, ExportBundle]:
    """Export the model and derive every other form from that, each once."""
    plain = folder / "plain"
    if not plain.exists():
        export_model(load_model(model), plain)
    source = load_bundle(plain)
    makers: dict[str, Callable[[Path], object]] = {
        "optimized": lambda target: optimize_pair(source, target),
        "half": lambda target: halve_pair(source, target),
    }
    if pictures is not None:
        makers["int8"] = lambda target: write_json(
            folder / "int8.json", quantize(source, target, pictures)
        )
    forms = {"plain": source}
    for name in wanted:
        if name == "plain":
            continue
        if not (folder / name).exists():
            makers[name](folder / name)
        forms[name] = load_bundle(folder / name)
    return forms


def quantize(source: ExportBundle, target: Path, pictures: Path) -> dict[str, Any]:
    """Write the 8-bit pair and give its report; random weights have no masks to protect."""
    _, report = quantize_pair(
        source,
        target,
        read_pictures(pictures, source.config.input_size),
        min_mask_iou=0.975 if source.trained else 0.0,
        rewriter=WinogradBesideInt8(),
    )
    return asdict(report)


def host_ratios(forms: dict[str, ExportBundle]) -> dict[str, dict[str, float]]:
    """Processor time of each form's graphs over plain's: the median of rounds in turn."""
    ratios: dict[str, dict[str, float]] = {name: {} for name in forms}
    for role in ROLES:
        opened = {
            name: (open_session(pair.graphs[role].path), load_golden(pair).inputs(role, 0))
            for name, pair in forms.items()
        }
        rounds: list[dict[str, float]] = []
        for _ in range(_ROUNDS + 2):
            taken = {}
            for name, (session, feed) in opened.items():
                started = time.process_time()
                session.run(None, feed)
                taken[name] = time.process_time() - started
            rounds.append(taken)
        for name in forms:
            ratios[name][role] = statistics.median(r[name] / r["plain"] for r in rounds[2:])
    return ratios


def parity(pair: ExportBundle) -> dict[str, Any]:
    """The pair's masks against PyTorch's at its export."""
    report = verify_bundle(pair, CpuRunner(pair), load_golden(pair), reference="PyTorch")
    meaning = next((c for c in report.checks if c.rung == "meaning"), None)
    return {
        "passed": report.passed,
        "max_abs": {t.graph: t.max_abs for t in report.tensors if t.tensor == "mask_logits"},
        "min_mask_iou": meaning.figures.get("min_mask_iou") if meaning else None,
    }


def count(pair: ExportBundle, kernels: int) -> dict[str, int]:
    """Executed ARM instructions of both graphs, the mask head with so many live kernels."""
    golden = load_golden(pair)
    live = np.ascontiguousarray(golden.kernels(0)[:, :kernels])
    runner = QemuRunner(pair, prepare_bundle())
    found = runner.count_instructions(golden.image(0), live, repeats=1)
    return {role: found[role].count for role in ROLES}


def main() -> int:
    """Measure what is not measured yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path, help="to calibrate int8 on")
    parser.add_argument("--kernels", default="", help="numbers of live kernels; default: all")
    parser.add_argument("--images", type=Path, help="of the annotations")
    parser.add_argument("--annotations", type=Path, help="COCO's form; measures AP")
    parser.add_argument("--no-count", action="store_true", help="without qemu")
    parser.add_argument("--forms", default="plain,optimized,half,int8")
    options = parser.parse_args()
    forms = make_forms(
        options.model, options.folder, options.forms.split(","), options.pictures
    )
    path = options.folder / "performance.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def measured(form: str, what: str, measure: Callable[[], Any]) -> Any:
        pair = forms[form]
        key = f"{form} {pair.sha256[:12]} {what}"
        if key not in known:
            print(f"{form}: {what} ...", file=sys.stderr)
            known[key] = measure()
            write_json(path, known)
        return known[key]

    all_kernels = forms["plain"].config.num_queries
    kernels = [int(n) for n in options.kernels.split(",") if n] or [all_kernels]
    ratios = host_ratios(forms)
    print("| form | graph | ARM instructions | of plain | host, of plain | MB | max abs | IoU | AP |")
    print("|---|---|---|---|---|---|---|---|---|")
    for form, pair in forms.items():
        agreement = measured(form, "parity", lambda pair=pair: parity(pair))
        ap = "-"
        if options.annotations:
            block = measured(
                form,
                "AP",
                lambda pair=pair: evaluate_pictures(
                    open_subject(str(pair.folder)),
                    options.images,
                    options.annotations,
                    journals=options.folder / "journals",
                ).metrics,
            )
            ap = f"{block['AP']:.4f}"
        counts: dict[str, dict[str, int]] = {"frame": {}, "mask_head": {}}
        for n in [] if options.no_count else kernels:
            for role, value in measured(
                form, f"count {n}", lambda pair=pair, n=n: count(pair, n)
            ).items():
                counts[role][str(n)] = value
        for role in ROLES:
            plain = known.get(f"plain {forms['plain'].sha256[:12]} count {kernels[-1]}", {})
            shown = counts[role] if role == "mask_head" else dict(list(counts[role].items())[-1:])
            for n, value in shown.items() or [("", 0)]:
                name = f"{role}, n = {n}" if role == "mask_head" and n else role
                share = f"{value / plain[role]:.3f}" if value else "-"
                print(
                    f"| {form} | {name} | {value:,} | {share} | {ratios[form][role]:.2f} "
                    f"| {pair.graphs[role].bytes / 1e6:.2f} "
                    f"| {agreement['max_abs'].get(role, float('nan')):.1e} "
                    f"| {agreement['min_mask_iou']} | {ap} |"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
