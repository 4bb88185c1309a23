"""Is it slower? The gate answers where the noise allows it, and only then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from latency_records import record_of

from mobileinst_deploy.core.errors import (
    BundleError,
    ConfigError,
    InputError,
    MeasurementInvalid,
    VerificationFailed,
)
from mobileinst_deploy.measure.protocol import PROTOCOLS
from mobileinst_deploy.measure.slowdown import median_interval, paired, unpaired
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.workflows import against
from mobileinst_deploy.workflows.against import (
    GateResult,
    against_pair,
    against_record,
    check_comparable,
    open_baseline,
    parse_share,
)
from mobileinst_deploy.workflows.bench_targets import BenchSettings

BEFORE = record_of({3: (10.0, 6.0)})


def clips(share: float, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring clips whose machine slows down and recovers."""
    draw = np.random.default_rng(seed)
    drift = 1 + 0.3 * np.sin(np.arange(400) / 30)
    one, other = (drift * np.exp(noise * draw.standard_normal(400)) for _ in range(2))
    return one, other * (1 + share)


@pytest.mark.parametrize(
    ("share", "noise", "answer"),
    [
        (0.00, 0.02, "not slower"),
        (0.03, 0.02, "not slower"),
        (0.12, 0.02, "slower"),
        (0.06, 0.5, "unknown"),
        (0.05, 0.02, "unknown"),
    ],
)
def test_drift_that_both_met_decides_nothing(share, noise, answer):
    assert paired(3, *clips(share, noise, 0)).answer(0.05) == answer


@pytest.mark.parametrize("share", [0.0, 0.04, 0.06])
def test_it_is_wrong_in_no_more_than_one_of_a_hundred(share):
    right = "slower" if share > 0.05 else "not slower"
    answers = [paired(3, *clips(share, 0.1, seed)).answer(0.05) for seed in range(200)]
    assert sum(a not in (right, "unknown") for a in answers) <= 2


@given(st.integers(0, 2000), st.integers(8, 60))
def test_the_interval_holds_the_middle_of_what_it_saw(seed, n):
    values = np.random.default_rng(seed).exponential(size=n)
    low, high = median_interval(values)
    assert low <= np.median(values) <= high


def test_of_few_samples_everything_is_possible():
    found = paired(1, [1.0] * 7, [2.0] * 7)
    assert (found.low, found.high) == (0.0, np.inf)
    assert found.answer(0.05) == "unknown"


def test_what_was_measured_apart_has_a_wider_interval():
    before, after = clips(0.12, 0.02, 0)
    apart, beside = unpaired(3, before, after), paired(3, before, after)
    assert apart.high - apart.low > beside.high - beside.low


@pytest.mark.parametrize(
    ("times", "error"),
    [
        ((10.0, 6.0), None),
        ((10.2, 6.1), None),
        ((12.0, 7.2), VerificationFailed),
        ((10.5, 6.3), MeasurementInvalid),
    ],
)
def test_a_record_is_held_against_one_of_before(times, error):
    now = record_of({3: times}, seed=1)
    found = against_record(now, BEFORE, 0.05, "before.json")
    if error is None:
        assert found.failure is None
    else:
        assert isinstance(found.failure, error)
        assert "at T = 3 a frame takes" in found.failure.cause
        assert found.failure.exit_code == (1 if error is VerificationFailed else 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runtime": "ncnn 1"}, "runtime"),
        ({"device": replace(BEFORE.device, serial="R58")}, "device"),
        ({"device": replace(BEFORE.device, soc="SM8550")}, "chip"),
        ({"protocol": PROTOCOLS["tnn-script"]}, "protocol"),
        ({"conditions": replace(BEFORE.conditions, live_kernels=2)}, "live kernels"),
    ],
)
def test_what_was_measured_otherwise_is_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        against_record(BEFORE, replace(BEFORE, **change), 0.05, "before.json")


@pytest.mark.parametrize("which", ["record", "baseline", "emulated"])
def test_what_must_not_be_believed_gets_no_answer(which):
    invalid = replace(BEFORE, invalid=("the clock moved",))
    emulated = replace(BEFORE, device=replace(BEFORE.device, emulated=True))
    now, before = {
        "record": (invalid, BEFORE),
        "baseline": (BEFORE, invalid),
        "emulated": (emulated, BEFORE),
    }[which]
    with pytest.raises(MeasurementInvalid):
        against_record(now, before, 0.05, "before.json")


def test_a_baseline_of_another_pair_is_refused_before_anything_is_measured(exported):
    other = replace(BEFORE, pair=replace(BEFORE.pair, model_id="other"))
    with pytest.raises(ConfigError, match="another pair: its model"):
        check_comparable(exported, other)
    bigger = replace(exported, config=replace(exported.config, input_size=(128, 128)))
    with pytest.raises(ConfigError, match="another pair: its input size"):
        check_comparable(exported, bigger)


def test_a_baseline_is_a_pair_or_a_record(exported, tmp_path):
    assert open_baseline(exported.folder).sha256 == exported.sha256
    with pytest.raises(ConfigError, match="neither a pair nor a latency record"):
        open_baseline(tmp_path)
    with pytest.raises(InputError):
        open_baseline(tmp_path / "missing.json")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BundleError):
        open_baseline(tmp_path)


def test_two_pairs_run_in_turn_clip_by_clip_each_going_first_as_often(exported, monkeypatch):
    order = []

    class Named(CpuRunner):
        number = 0

        def __init__(self, bundle):
            super().__init__(bundle)
            self.number = Named.number
            Named.number += 1

        def ready(self, role, inputs):
            order.append((self.number, role))
            return super().ready(role, inputs)

    monkeypatch.setattr(against, "open_host", lambda pair, runtime, progress: Named(pair))
    used = replace(PROTOCOLS["sd778g"], warmups=0, runs=4, seconds=0.0)
    found = against_pair(exported, exported, BenchSettings(used, (2,)), 0.05)
    clips = [number for number, role in order if role == "frame"]
    assert clips == [1, 0, 0, 1, 1, 0, 0, 1]
    assert isinstance(found, GateResult)
    assert found.slowdowns[0].comparisons == 4


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0)])
def test_a_share_is_read(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "five", "-1%", "200%", "nan", "inf", "5 %%"])
def test_anything_else_is_no_share(text):
    with pytest.raises(ConfigError):
        parse_share(text)
