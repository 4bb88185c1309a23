"""Records keep every sample, and their figures can be recomputed from what they keep."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mobileinst_deploy.core.records import BenchReport, Check, ClipLatency, Latency, ParityReport

samples = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60)


@given(samples)
def test_the_statistics_are_numpys(values):
    latency = Latency(tuple(values))
    assert latency.min == min(values)
    assert latency.p50 == pytest.approx(np.median(values))
    assert latency.p90 == pytest.approx(np.percentile(values, 90))
    assert latency.mad == pytest.approx(np.median(np.abs(values - np.median(values))))
    assert latency.to_dict()["samples_ms"] == values


def test_a_clip_is_paid_for_by_all_of_its_frames():
    clip = ClipLatency(3, Latency((100.0, 110.0, 90.0)), Latency((70.0, 40.0, 55.0, 200.0)))
    assert clip.amortised_ms == pytest.approx((100 + 2 * 62.5) / 3)
    assert clip.worst_ms == 200


def test_without_reuse_frames_a_clip_costs_what_its_keyframe_costs():
    clip = ClipLatency(1, Latency((100.0,)), None)
    assert (clip.amortised_ms, clip.worst_ms) == (100, 100)
    assert clip.to_dict()["reuse"] is None


def test_a_measurement_is_valid_until_there_is_a_reason_against_it():
    report = BenchReport(
        bundle_sha256="00",
        model_id="tiny",
        input_size=(64, 128),
        trained=False,
        device={"kind": "host"},
        emulated=False,
        settings={},
        clips=(ClipLatency(1, Latency((1.0,)), None),),
    )
    assert report.valid
    document = report.to_dict()
    assert document["valid"] is True
    assert json.loads(json.dumps(document)) == document


def test_a_ladder_holds_when_every_rung_does_and_names_the_lowest_that_does_not():
    def climb(*passed: bool) -> ParityReport:
        checks = tuple(Check(f"rung {i}", ok, "") for i, ok in enumerate(passed))
        return ParityReport("00", "tiny", False, "cpu", "onnxruntime", "PyTorch", {}, checks)

    assert climb(True, True).passed
    assert climb(True, True).first_failure is None
    failed = climb(True, False, True, False)
    assert not failed.passed
    assert failed.first_failure.rung == "rung 1"
    document = failed.to_dict()
    assert document["passed"] is False
    assert [check["passed"] for check in document["checks"]] == [True, False, True, False]
