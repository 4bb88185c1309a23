"""Why not the paper's milliseconds: what differs, the weightiest first, and no guess among it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from latency_records import record_of

from mobileinst_deploy.measure.device import Core, DeviceState
from mobileinst_deploy.measure.explain import explain
from mobileinst_deploy.measure.record import LatencyRecord

SIZE = (384, 640)


def phone(core: int = 7, khz: int = 2_400_000, max_khz: int = 2_400_000) -> LatencyRecord:
    """A record as from a phone at the size of the paper's videos."""
    record = record_of({1: (200.0, None), 3: (200.0, 170.0)})
    schedules = tuple(
        replace(s, samples=tuple(replace(v, khz=khz) for v in s.samples)) for s in record.schedules
    )
    return replace(
        record,
        pair=replace(record.pair, input_size=SIZE),
        device=replace(record.device, kind="adb", serial="R58", soc="SM8550"),
        conditions=replace(record.conditions, core=core),
        state_before=DeviceState(cores=(Core(core, True, max_khz=max_khz),)),
        state_after=DeviceState(thermal_status=0),
        schedules=schedules,
    )


def by_name(record: LatencyRecord, macs: float | None = 10.49e9):
    return {d.what: d for d in explain(record, macs).differences}


def test_the_weightiest_comes_first_and_the_unknown_last():
    factors = [d.factor for d in explain(phone(), 1.05e9).differences]
    known = [max(f, 1 / f) for f in factors if f is not None]
    assert known == sorted(known, reverse=True)
    assert factors[: len(known)] == [f for f in factors if f is not None]
    assert explain(phone(), 1.05e9).differences[0].what == "model and size"


def test_what_is_alike_is_left_out():
    names = by_name(replace(phone(), device=replace(phone().device, soc="SM7325")))
    assert "chip" not in names
    assert "T" not in names


@pytest.mark.parametrize(
    ("record", "what", "factor"),
    [
        (phone(max_khz=1_200_000, khz=1_200_000), "core's highest clock", 2.0),
        (phone(khz=1_600_000), "clock under load", 1.5),
    ],
    ids=["a slow core", "throttled"],
)
def test_a_factor_is_what_it_can_be_computed_or_was_measured_to_be(record, what, factor):
    assert by_name(record)[what].factor == pytest.approx(factor)


def test_the_model_counts_by_its_multiply_accumulates():
    assert by_name(phone(), 5.245e9)["model and size"].factor == pytest.approx(0.5)
    assert by_name(phone(), None)["model and size"].factor is None


@pytest.mark.parametrize("what", ["runtime", "precision", "chip"])
def test_what_nobody_knows_has_no_factor(what):
    assert by_name(phone())[what].factor is None


def test_what_can_be_estimated_is_multiplied_and_no_more():
    found = explain(phone(), 10.49e9)
    product = found.row.ms
    for difference in found.differences:
        product *= difference.factor or 1.0
    assert found.estimated_ms == pytest.approx(product)
    assert found.measured_ms == pytest.approx(200, rel=0.01)


def test_an_emulated_phone_explains_everything_but_time():
    emulated = replace(phone(), device=replace(phone().device, emulated=True))
    found = explain(emulated, 10.49e9)
    assert found.measured_ms is None
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["estimated_ms"] is None
    assert not {"T", "preparing the input", "clock under load"} & {
        d.what for d in found.differences if d.basis == "measured"
    }
    assert "device" in {d.what for d in found.differences}
