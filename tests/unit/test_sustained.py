"""A load that goes on: what is missed, what holds, what throttles, and when not to believe it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from latency_records import record_of

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.measure.device import Core, DeviceState
from mobileinst_deploy.measure.samples import Sample, Schedule
from mobileinst_deploy.measure.sustained import Load, Reading, Sustained, SustainedRecord
from mobileinst_deploy.workflows.sustained import Camera

LOAD = Load(100, 10)
MODEL = record_of({1: (10.0, None)})
COOL = DeviceState(
    cores=(Core(7, True, max_khz=2_400_000, now_khz=2_400_000),),
    thermal_status=0,
    battery_celsius=28.0,
    charging=False,
    awake=True,
    battery_uah=1_000_000,
    battery_mv=4000,
)


def borne(took, *, load: Load = LOAD, length: int = 1, khz=None, **changes) -> Sustained:
    """What a core gives that takes ``took(second)`` ms for a frame."""
    now, samples, taken = 0.0, [], -1
    while max(now, 1000 * (taken + 1) / load.fps) < 1000 * load.seconds:
        taken = max(int(now * load.fps / 1000), taken + 1)
        start = max(now, 1000 * taken / load.fps)
        run = took(start / 1000)
        clock = None if khz is None else khz(start / 1000)
        samples.append(Sample("frame", taken, start, 0.0, run, 7, clock))
        now = start + run
    readings = tuple(Reading(float(s), COOL) for s in range(5, int(load.seconds), 10))
    schedule = Schedule(length, max(now, 1000 * load.seconds), tuple(samples))
    made = Sustained(schedule, readings, load, COOL, COOL, (7,))
    return replace(made, **changes)


def record(*clips: Sustained, emulated: bool = False, kind: str = "adb") -> SustainedRecord:
    device = replace(MODEL.device, kind=kind, emulated=emulated)
    load = clips[0].load
    return SustainedRecord("2026-01-01T00:00:00+00:00", MODEL.pair, device, "x 1", 7, load, clips)


def test_a_core_that_keeps_up_misses_nothing():
    found = borne(lambda _: 60.0)
    assert (found.due, found.missed, found.holds) == (1000, 0, True)
    assert [part.p50_ms for part in found.parts] == pytest.approx([60.0] * 10)


def test_a_core_of_half_the_pace_misses_half_and_more():
    found = borne(lambda _: 150.0)
    # Every frame that is taken is done after the next one arrived.
    assert found.missed == found.due
    assert not found.holds


def test_a_core_that_slows_in_the_second_half_does_not_hold():
    found = borne(lambda s: 60.0 if s < 97.5 else 120.0)
    assert found.missed / found.due > 0.01
    assert not found.holds
    late = borne(lambda s: 60.0 if s < 99.3 else 120.0)
    assert 0 < late.missed / late.due < 0.01
    assert not late.holds, "more than one in a hundred of the second half is missed"


def test_the_smallest_clip_length_that_holds_is_told():
    slow, quick = borne(lambda _: 120.0), borne(lambda _: 90.0, length=3)
    assert record(slow, quick).holds == 3
    assert record(slow).holds is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"khz": lambda s: 2_400_000 if s < 50 else 1_500_000}, "after 50 s the clock fell"),
        (
            {"readings": (Reading(30.0, replace(COOL, thermal_status=2)),)},
            "after 30 s Android's thermal status was moderate",
        ),
    ],
)
def test_throttling_is_a_finding_and_no_reason_for_disbelief(changes, says):
    clip = borne(lambda _: 60.0, **changes)
    assert says in clip.throttled
    with_heat = replace(clip, readings=(*borne(lambda _: 60.0).readings, *clip.readings))
    made = record(with_heat)
    assert made.invalid == ()
    assert any("T = 1" in note for note in made.notes)


def test_energy_is_told_where_the_battery_tells():
    after = replace(COOL, battery_uah=999_000, battery_mv=3800)
    found = borne(lambda _: 60.0, after=after)
    assert found.millijoules == pytest.approx(1000 * 3.6 * 3.9 / 1000)
    charging = replace(COOL, charging=True)
    for unknown in (
        {"before": charging, "after": charging},
        {"after": replace(after, battery_uah=None)},
        {"after": COOL},
    ):
        assert borne(lambda _: 60.0, **{"after": after, **unknown}).millijoules is None


@pytest.mark.parametrize(
    ("clip", "says"),
    [
        (borne(lambda _: 10.0, load=Load(30, 10)), "too short"),
        (borne(lambda _: 10.0, affinity=(0, 7)), "core 7 was asked for"),
        (borne(lambda _: 10.0, after=replace(COOL, charging=True)), "charger"),
        (borne(lambda _: 10.0, after=replace(COOL, awake=False)), "screen"),
        (borne(lambda _: 10.0, before=replace(COOL, thermal_status=1)), "began hot"),
        (borne(lambda _: 10.0, readings=()), "could not be followed"),
        (borne(lambda _: 10.0, schedule=Schedule(1, 5e4, MODEL.schedules[0].samples)), "ended"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rules_of_its_own_make_it_invalid(clip: Sustained, says: str):
    assert any(says in why for why in record(clip).invalid)


def test_an_emulated_device_has_no_deadlines():
    made = record(borne(lambda _: 60.0), emulated=True)
    document = json.loads(json.dumps(made.to_dict()))
    assert document["smallest_clip_length_that_holds"] is None
    assert "schedules" not in document
    for told in ("missed", "holds", "parts", "millijoules_per_frame"):
        assert told not in document["clips"][0]
    assert document["clips"][0]["readings"]


@pytest.mark.parametrize(
    ("seconds", "fps"), [(0, 30), (-1, 30), (3601, 1), (60, 0), (60, 1e9), (3600, 30), (1e400, 1)]
)
def test_a_load_that_cannot_be_is_refused(seconds: float, fps: float):
    with pytest.raises(ConfigError):
        Load(seconds, fps)


def test_the_camera_keeps_only_the_newest_frame():
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    camera = Camera(10, lambda: now[0], sleep)
    seen = []
    for took in (0.01, 0.25, 0.01, 0.01):
        camera.wait()
        seen.append(round(now[0], 3))
        now[0] += took
    # After the slow second frame the one of 0.3 s waits already; nobody gets that of 0.2 s.
    assert seen == [0.0, 0.1, 0.35, 0.4]
