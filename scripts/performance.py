#!/usr/bin/env python3
"""Measure every form of a model's pair and print the tables of docs/performance.md.

    scripts/performance.py MODEL FOLDER [--pictures D] [--kernels 10,100] [--forms plain,ncnn]
    scripts/performance.py MODEL FOLDER --images D --annotations F    also AP on COCO's pictures
    scripts/performance.py MODEL FOLDER --passes                      what each rewriting pass gains

Forms: plain (as exported), optimized, half (weights stored as float16), int8 (calibrated on
--pictures), ncnn (plain, by the other runtime). They are made in FOLDER once, and what was measured
is kept in FOLDER/performance.json, so that an interrupted run goes on where it was.

Instructions are those of one start of the runner. Host times are processor time on one thread, the
forms in turn within one process, each as its median ratio to plain.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.contract import ROLES, Call, GraphRunner, Role
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.core.journal import Journals
from mobileinst_deploy.core.pair_files import NCNN_FILES
from mobileinst_deploy.core.progress import silent
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.optimize import optimize_graph, passes
from mobileinst_deploy.optimize.beside_int8 import WinogradBesideInt8
from mobileinst_deploy.optimize.pair import optimize_pair
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.rewritten import write_derived
from mobileinst_deploy.quantize import halve_pair, quantize_pair, read_pictures
from mobileinst_deploy.runtimes import for_device, open_host
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner
from mobileinst_deploy.workflows.precision import evaluate_pictures
from mobileinst_deploy.workflows.subject import open_subject

FORMS = ("plain", "optimized", "half", "int8", "ncnn")
_ROUNDS = 15


@dataclass(frozen=True)
class Form:
    """One form of the pair and what runs it here."""

    name: str
    pair: ExportBundle
    runtime: str
    runner: GraphRunner


class Measured:
    """What was measured so far, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """A figure, measured when it is not known."""
        if name not in self._known:
            print(f"{name} ...", file=sys.stderr)
            self._known[name] = measure()
            write_json(self._path, self._known)
        return self._known[name]


def make_forms(model: str, folder: Path, names: list[str], pictures: Path | None) -> list[Form]:
    """Export the model and derive the other forms from that, each once."""
    if not (folder / "plain").exists():
        export_model(load_model(model), folder / "plain")
    plain = load_bundle(folder / "plain")
    makers: dict[str, Callable[[Path], object]] = {
        "optimized": lambda target: optimize_pair(plain, target),
        "half": lambda target: halve_pair(plain, target),
        "int8": lambda target: quantize(plain, target, pictures),
    }
    forms = [Form("plain", plain, "onnxruntime", CpuRunner(plain))]
    for name in names:
        if name == "ncnn":
            forms.append(Form(name, plain, name, open_host(plain, name)))
        elif name != "plain":
            if not (folder / name).exists():
                makers[name](folder / name)
            pair = load_bundle(folder / name)
            forms.append(Form(name, pair, "onnxruntime", CpuRunner(pair)))
    return forms


def quantize(plain: ExportBundle, target: Path, pictures: Path | None) -> None:
    """Write the 8-bit pair, its report beside it; random weights have no masks to protect."""
    if pictures is None:
        raise SystemExit("int8 needs --pictures to calibrate on")
    _, report = quantize_pair(
        plain,
        target,
        read_pictures(pictures, plain.config.input_size),
        min_mask_iou=0.975 if plain.trained else 0.0,
        rewriter=WinogradBesideInt8(),
    )
    write_json(target.with_suffix(".json"), asdict(report))


def count(pair: ExportBundle, runtime: str, kernels: int) -> dict[str, int]:
    """Executed ARM instructions of both graphs, the mask head with so many live kernels."""
    golden = load_golden(pair)
    live = np.ascontiguousarray(golden.kernels(0)[:, :kernels])
    runner = QemuRunner(*for_device(pair, runtime, silent))
    found = runner.count_instructions(golden.image(0), live, repeats=1)
    return {role: found[role].count for role in ROLES}


def weight(form: Form, role: Role) -> int:
    """Bytes of what the runtime reads."""
    if form.runtime == "ncnn":
        return sum((form.pair.folder / name).stat().st_size for name in NCNN_FILES[role])
    return form.pair.graphs[role].bytes


def parity(form: Form) -> dict[str, Any]:
    """The masks against PyTorch's at the export, over the golden pictures."""
    report = verify_bundle(form.pair, form.runner, load_golden(form.pair), reference="PyTorch")
    meaning = next((c.figures for c in report.checks if c.rung == "meaning"), {})
    return {
        "passed": report.passed,
        "max_abs": {t.graph: t.max_abs for t in report.tensors if t.tensor == "mask_logits"},
        "min_mask_iou": meaning.get("min_mask_iou"),
    }


def average_precision(form: Form, images: Path, annotations: Path, journals: Journals) -> float:
    """Mask AP on COCO's form of pictures."""
    subject = replace(
        open_subject(str(form.pair.folder)),
        runtime=form.runtime,
        sha256=f"{form.pair.sha256}-{form.runtime}",
        runner=form.runner,
    )
    ap = evaluate_pictures(subject, images, annotations, journals=journals).metrics["AP"]
    return float("nan") if ap is None else ap


def host_ratios(forms: list[Form]) -> dict[str, dict[Role, float]]:
    """Processor time of each form's graphs over plain's: the median of rounds in turn."""
    ratios: dict[str, dict[Role, float]] = {form.name: {} for form in forms}
    for role in ROLES:
        rounds: list[dict[str, float]] = []
        call = Call(role, load_golden(forms[0].pair).inputs(role, 0))
        for _ in range(_ROUNDS + 2):
            taken = {}
            for form in forms:
                started = time.process_time()
                form.runner.outputs([call])
                taken[form.name] = time.process_time() - started
            rounds.append(taken)
        for form in forms:
            shares = [taken[form.name] / taken["plain"] for taken in rounds[2:]]
            ratios[form.name][role] = statistics.median(shares)
    return ratios


def passes_table(plain: ExportBundle, folder: Path, measured: Measured) -> None:
    """Instructions of both graphs after each pass, one added at a time."""
    names = list(passes())
    before = measured.get("plain count", lambda: count(plain, "onnxruntime", 1 << 20))
    print("| after | frame | of plain | mask_head | of plain |\n|---|---|---|---|---|")
    for number, name in enumerate(names, start=1):
        chosen = frozenset(names[:number])

        def rewritten(chosen: frozenset[str] = chosen) -> dict[str, int]:
            graphs = {
                role: optimize_graph(load_graph(plain.graphs[role].onnx), only=chosen)[0]
                for role in ROLES
            }
            pair = write_derived(plain, folder / "passes", graphs, tuple(sorted(chosen)))
            return count(pair, "onnxruntime", 1 << 20)

        after = measured.get(f"passes up to {name}", rewritten)
        cells = (f"{after[role]:,} | {after[role] / before[role]:.3f}" for role in ROLES)
        print(f"| {name} | {' | '.join(cells)} |")


def forms_table(forms: list[Form], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A row for each form and graph, the mask head with all of its kernels."""
    print("| form | graph | ARM instructions | of plain | host time, of plain | MB | max abs |")
    print("|---|---|---|---|---|---|---|")
    for form in forms:
        row, plain = rows[form.name], rows["plain"]
        for role in ROLES:
            counted, share = "", ""
            if row["count"]:
                counted = f"{row['count'][role]:,}"
                share = f"{row['count'][role] / plain['count'][role]:.3f}"
            print(
                f"| {form.name} | {role} | {counted} | {share} "
                f"| {row['host'][role]:.2f} | {row['bytes'][role] / 1e6:.2f} "
                f"| {row['parity']['max_abs'].get(role, float('nan')):.1e} |"
            )
    print("\n| form | lowest mask IoU | AP |\n|---|---|---|")
    for form in forms:
        row = rows[form.name]
        ap = "" if row["AP"] is None else f"{row['AP']:.4f}"
        print(f"| {form.name} | {row['parity']['min_mask_iou']} | {ap} |")


def kernels_table(rows: Mapping[str, Mapping[int, Mapping[str, int]]]) -> None:
    """What reuse frames cost with so many live kernels, of a keyframe."""
    numbers = list(next(iter(rows.values())))
    print("\n| form | " + " | ".join(f"n = {n}" for n in numbers) + " |")
    print("|---" * (len(numbers) + 1) + "|")
    for name, counts in rows.items():
        shares = (f"{c['mask_head'] / c['frame']:.3f}" for c in counts.values())
        print(f"| {name} | {' | '.join(shares)} |")


def main() -> int:
    """Measure what is not known yet, then print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--forms", default=",".join(FORMS), help="default: %(default)s")
    parser.add_argument("--pictures", type=Path, help="to calibrate int8 on")
    parser.add_argument("--kernels", default="", help="numbers of live kernels to count as well")
    parser.add_argument("--images", type=Path, help="of the annotations")
    parser.add_argument("--annotations", type=Path, help="COCO's form; measures AP")
    parser.add_argument("--passes", action="store_true", help="what each pass gains, nothing else")
    parser.add_argument("--no-count", action="store_true", help="without qemu")
    options = parser.parse_args()
    folder: Path = options.folder
    names = [] if options.passes else options.forms.split(",")
    forms = make_forms(options.model, folder, names, options.pictures)
    measured = Measured(folder / "performance.json")
    if options.passes:
        passes_table(forms[0].pair, folder, measured)
        return 0
    most = forms[0].pair.config.num_queries
    numbers = [*map(int, filter(None, options.kernels.split(","))), most]

    def counted(form: Form, n: int) -> dict[str, int]:
        name = f"{form.name} count {n}"
        return dict(measured.get(name, lambda: count(form.pair, form.runtime, n)))

    def ap(form: Form) -> float | None:
        if options.annotations is None:
            return None
        arguments = (form, options.images, options.annotations, Journals(folder / "journals"))
        return float(measured.get(f"{form.name} AP", lambda: average_precision(*arguments)))

    ratios = host_ratios(forms)
    rows = {
        form.name: {
            "parity": measured.get(f"{form.name} parity", lambda form=form: parity(form)),
            "AP": ap(form),
            "count": {} if options.no_count else counted(form, most),
            "host": ratios[form.name],
            "bytes": {role: weight(form, role) for role in ROLES},
        }
        for form in forms
    }
    forms_table(forms, rows)
    if options.kernels and not options.no_count:
        kernels_table({form.name: {n: counted(form, n) for n in numbers} for form in forms})
    return 0


if __name__ == "__main__":
    sys.exit(main())
