"""Climbing the ladder in a test."""

from __future__ import annotations

from mobileinst_deploy.core.bundle import ExportBundle, load_golden
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.core.records import Check, ParityReport
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner

RUNGS = [
    "pair",
    "names",
    "dtypes",
    "shapes",
    "operators",
    "outputs",
    "finite",
    "values",
    "meaning",
    "pair contract",
    "live kernels",
    "sequence",
]


def climb(bundle: ExportBundle, runner=None, golden: Golden | None = None) -> ParityReport:
    return verify_bundle(
        bundle,
        runner or CpuRunner(bundle),
        golden or load_golden(bundle),
        reference="PyTorch, at the export",
    )


def check(report: ParityReport, rung: str) -> Check:
    return next(c for c in report.checks if c.rung == rung)
