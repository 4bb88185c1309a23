"""The protocols: which core, when to start, what to believe; no phone needed."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import ConfigError, DeviceError
from mobileinst_deploy.measure import protocol
from mobileinst_deploy.measure.device import Core, DeviceFacts, DeviceState
from mobileinst_deploy.measure.paper import ROWS, compare_with_paper
from mobileinst_deploy.measure.protocol import (
    PROTOCOLS,
    check_core,
    check_gate,
    choose_core,
    wait_until_cool,
)
from mobileinst_deploy.measure.record import make_record
from mobileinst_deploy.measure.samples import (
    Latency,
    Sample,
    Schedule,
    clip_latency,
    from_columns,
    to_columns,
)
from mobileinst_deploy.measure.validity import Measured, Verdict, check_whole, judge

SD778G, TNN = PROTOCOLS["sd778g"], PROTOCOLS["tnn-script"]
CORES = tuple(
    Core(i, True, 300_000, khz, khz, khz, "schedutil")
    for i, khz in enumerate([1_900_800] * 4 + [2_208_000] * 3 + [2_400_000])
)
COOL = DeviceState(cores=CORES, thermal_status=0, battery_celsius=30.0, charging=False)
REAL = DeviceFacts("adb", "S", "Xiaomi", "Mi", "SM7325", "13", ("arm64-v8a",), False)
COCO = ModelConfig("topformer-base", tuple(f"c{i}" for i in range(80)), (640, 896))
VIS = ModelConfig("topformer-base", tuple(f"c{i}" for i in range(40)), (384, 640))


def samples(t: int, clips: int, ms: float = 100.0, **change: object) -> tuple[Sample, ...]:
    return tuple(
        replace(
            Sample("frame" if i == 0 else "mask_head", clip, 0.0, 1.0, ms, 7, 2_400_000), **change
        )
        for clip in range(clips)
        for i in range(t)
    )


def measured(
    *schedules: Schedule,
    affinity: tuple[int, ...] = (7,),
    core: int | None = 7,
    before: DeviceState = COOL,
    after: DeviceState = COOL,
    facts: DeviceFacts = REAL,
) -> Measured:
    return Measured(
        facts=facts,
        before=before,
        after=after,
        runtime="onnxruntime 1.32.0",
        core=core,
        affinity=affinity,
        schedules=schedules or (Schedule(3, 20_000.0, samples(3, 60)),),
    )


def reasons(found: Measured, before: DeviceState = COOL, after: DeviceState = COOL) -> str:
    return "; ".join(judge(SD778G, replace(found, before=before, after=after)).invalid)


class TestCore:
    @pytest.mark.parametrize(
        ("wanted", "core"), [("auto", 7), ("prime", 7), ("little", 0), ("5", 5)]
    )
    def test_is_chosen_by_the_clocks_or_by_number(self, wanted: str, core: int) -> None:
        assert choose_core(COOL, wanted) == core

    def test_auto_passes_over_a_core_that_is_offline(self) -> None:
        cores = (*CORES[:7], replace(CORES[7], online=False))
        assert choose_core(replace(COOL, cores=cores), "auto") == 6

    @pytest.mark.parametrize("wanted", ["big", "", "-1", "7.0", "\u0667", "1000"])
    def test_must_be_a_name_or_a_number(self, wanted: str) -> None:
        with pytest.raises(ConfigError):
            check_core(wanted)

    def test_that_is_offline_or_absent_is_refused(self) -> None:
        cores = (*CORES[:7], replace(CORES[7], online=False))
        with pytest.raises(DeviceError, match="core 7 is offline"):
            choose_core(replace(COOL, cores=cores), "7")
        with pytest.raises(DeviceError, match="no core 9; its cores are 0 to 7"):
            choose_core(COOL, "9")

    def test_cannot_be_guessed_without_clocks(self) -> None:
        silent = DeviceState()
        with pytest.raises(DeviceError, match="--core N"):
            choose_core(silent, "auto")
        assert choose_core(silent, "4") == 4


class TestGate:
    def wait(self, *states: DeviceState, limit_s: float = 60.0) -> tuple[DeviceState, float, list]:
        left, now, told = list(states), [0.0], []

        def sleep(seconds: float) -> None:
            now[0] += seconds

        state, waited = wait_until_cool(
            lambda: left.pop(0) if len(left) > 1 else left[0],
            37.0,
            limit_s=limit_s,
            progress=lambda *progress: told.append(progress),
            sleep=sleep,
            clock=lambda: now[0],
        )
        return state, waited, told

    def test_opens_at_once_for_a_cool_phone(self) -> None:
        assert self.wait(COOL) == (COOL, 0.0, [])

    @pytest.mark.parametrize(
        "hot",
        [
            replace(COOL, battery_celsius=37.1),
            replace(COOL, skin_celsius=40.0),
            replace(COOL, thermal_status=1),
        ],
        ids=["battery", "skin", "thermal status"],
    )
    def test_waits_for_a_hot_one_and_tells(self, hot: DeviceState) -> None:
        state, waited, told = self.wait(hot, hot, COOL)
        assert state == COOL
        assert waited > 0
        assert [label for label, _, _ in told] == ["wait for the phone to cool"] * 2
        with pytest.raises(DeviceError, match="too hot for 60 s"):
            self.wait(hot)

    def test_is_open_when_the_temperature_is_unknown(self) -> None:
        assert self.wait(DeviceState())[1] == 0.0

    @pytest.mark.parametrize("celsius", [0.0, -5.0, 61.0, float("nan"), float("inf")])
    def test_must_be_a_temperature_of_a_phone(self, celsius: float) -> None:
        with pytest.raises(ConfigError):
            check_gate(celsius)


class TestValidity:
    def test_a_good_measurement_is_valid(self) -> None:
        assert judge(SD778G, measured()) == Verdict((), ())

    def test_another_affinity_is_not(self) -> None:
        assert "the kernel allows 0, 1" in reasons(measured(affinity=(0, 1)))

    def test_runs_on_another_core_are_not(self) -> None:
        strayed = Schedule(1, 20_000.0, samples(1, 59) + samples(1, 1, cpu=3))
        assert "1 of 60 runs ended on another core than 7" in reasons(measured(strayed))

    def test_a_clock_that_drops_is_not(self) -> None:
        slow = samples(1, 1, khz=1_497_600)
        dropped = Schedule(1, 20_000.0, samples(1, 59) + slow)
        assert "core 7 moved between 1498 and 2400 MHz" in reasons(measured(dropped))

    def test_a_clock_that_stays_low_is_not(self) -> None:
        low = Schedule(1, 20_000.0, samples(1, 60, khz=1_497_600))
        assert "core 7 never ran faster than 1498 of its 2400 MHz" in reasons(measured(low))

    def test_a_lower_limit_of_the_clock_is_not(self) -> None:
        cores = (*CORES[:7], replace(CORES[7], allowed_khz=1_800_000))
        assert "may run at 1800 MHz after" in reasons(measured(), after=replace(COOL, cores=cores))

    def test_another_cores_limit_does_not_matter(self) -> None:
        cores = (replace(CORES[0], allowed_khz=1_000_000), *CORES[1:])
        assert reasons(measured(), after=replace(COOL, cores=cores)) == ""

    def test_a_thermal_status_is_not(self) -> None:
        hot = replace(COOL, thermal_status=2)
        assert "none before and moderate after" in reasons(measured(), after=hot)

    def test_throttling_that_cannot_be_excluded_is_not(self) -> None:
        blind = measured(Schedule(1, 20_000.0, samples(1, 60, khz=None)))
        unknown = replace(COOL, thermal_status=None)
        assert "throttling cannot be excluded" in reasons(blind, unknown, unknown)
        assert reasons(blind) == ""  # the thermal status alone is enough

    def test_too_few_runs_are_not(self) -> None:
        few = Schedule(3, 9_000.0, samples(3, 49))
        said = reasons(measured(few))
        assert "49 of 50 frame runs" in said
        assert "ended after 9.0 s" in said

    @pytest.mark.parametrize(
        ("asked", "why"),
        [
            ({"runs": 5}, "5 runs where sd778g asks for 50"),
            ({"seconds": 1.0}, "1 seconds where sd778g asks for 10"),
            ({"warmups": 0}, "0 warm-ups where sd778g asks for 10"),
        ],
    )
    def test_less_than_the_protocol_asks_for_is_not(self, asked: dict, why: str) -> None:
        used = protocol.protocol("sd778g", **asked)
        assert why in judge(used, measured()).invalid

    def test_a_wide_spread_is_not_unless_it_is_an_emulators(self) -> None:
        mixed = Schedule(1, 20_000.0, samples(1, 31, 100.0) + samples(1, 30, 200.0))
        assert "spread by" not in reasons(measured(mixed))  # MAD 0: more than half are alike
        uneven = tuple(replace(s, run_ms=100.0 + 2 * i) for i, s in enumerate(samples(1, 60)))
        wide = measured(Schedule(1, 20_000.0, uneven))
        assert "keyframe runs spread by" in reasons(wide)
        emulated = replace(wide, facts=replace(REAL, emulated=True))
        assert judge(SD778G, emulated).invalid == ()

    def test_unknown_temperature_and_a_pulled_charger_are_notes(self) -> None:
        before = replace(COOL, battery_celsius=None)
        after = replace(COOL, charging=True)
        notes = judge(SD778G, measured(before=before, after=after)).notes
        assert "not gated" in notes[0]
        assert "charger" in notes[1]

    def test_tnns_habits_forbid_nothing_and_tell_everything(self) -> None:
        slow = samples(1, 1, khz=1_497_600)
        schedule = Schedule(1, 10.0, samples(1, 59) + slow)
        dropped = measured(schedule, affinity=tuple(range(8)), core=None)
        verdict = judge(TNN, dropped)
        assert verdict.invalid == ()
        assert "moved between" in verdict.notes[0]

    def test_a_host_that_tells_no_clock_is_a_note_and_no_reason(self) -> None:
        host = replace(REAL, kind="host", serial="cpu")
        blind = measured(Schedule(1, 20_000.0, samples(1, 60, khz=None)), facts=host)
        verdict = judge(SD778G, replace(blind, before=DeviceState(), after=DeviceState()))
        assert verdict.invalid == ()
        assert "throttling cannot be excluded" in verdict.notes[0]


class TestLatencies:
    def test_amortise_over_the_clip(self) -> None:
        mixed = tuple(replace(s, run_ms=400.0) if s.role == "frame" else s for s in samples(4, 50))
        clip = clip_latency(Schedule(4, 20_000.0, mixed))
        assert (clip.keyframe.p50, clip.amortised_ms, clip.worst_ms) == (400.0, 175.0, 400.0)
        assert clip.prepare_ms == 1.0

    def test_without_reuse_frames_a_clip_costs_what_its_keyframe_costs(self) -> None:
        clip = clip_latency(Schedule(1, 20_000.0, samples(1, 50)))
        assert (clip.amortised_ms, clip.worst_ms) == (100.0, 100.0)
        assert clip.to_dict()["reuse"] is None

    def test_amortise_the_headline_statistic(self) -> None:
        uneven = (*samples(1, 49), *samples(1, 1, ms=1000.0))
        schedule = Schedule(1, 20_000.0, uneven)
        assert clip_latency(schedule, "median").amortised_ms == 100.0
        assert clip_latency(schedule, "mean").amortised_ms == pytest.approx(118.0)

    def test_include_the_preparation_as_tnn_does(self) -> None:
        clip = clip_latency(Schedule(1, 20_000.0, samples(1, 50)), "mean", True)
        assert clip.keyframe.mean == 101.0

    @pytest.mark.parametrize("lost", ["frame", "mask_head"])
    def test_need_runs_of_both_graphs(self, lost: str) -> None:
        left = tuple(s for s in samples(3, 50) if s.role != lost)
        with pytest.raises(DeviceError, match="lacks runs"):
            check_whole([Schedule(3, 20_000.0, left)])

    @given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60))
    def test_have_numpys_statistics(self, values: list[float]) -> None:
        latency = Latency(tuple(values))
        ordered = sorted(values)
        assert latency.min == ordered[0]
        assert latency.p50 == pytest.approx(statistics.median(values))
        assert ordered[0] <= latency.p50 <= latency.p90 <= ordered[-1]
        spread = statistics.median(abs(v - statistics.median(values)) for v in values)
        assert latency.mad == pytest.approx(spread)

    def test_come_back_from_the_form_on_file(self) -> None:
        kept = samples(3, 2, khz=None)
        assert from_columns(to_columns(kept)) == kept

    def test_of_an_emulator_have_another_name_in_the_record_and_no_statistics(self, pair) -> None:
        def document(emulated: bool) -> dict:
            facts = replace(REAL, emulated=emulated)
            return make_record(
                pair,
                SD778G,
                measured(facts=facts),
                live_kernels=5,
                core_wanted="auto",
                max_celsius=37.0,
                measured_at="2026-01-31T12:00:00+00:00",
            ).to_dict()

        real, emulated = document(False), document(True)
        assert real["clips"]
        assert "emulated_schedules" not in real
        assert not {"clips", "schedules"} & emulated.keys()
        assert len(emulated["emulated_schedules"][0]["samples"]["run_ms"]) == 180
        assert emulated["load_ms"] is None


class TestPaper:
    def test_rows_match_model_size_and_chip(self) -> None:
        found = compare_with_paper(COCO, REAL)
        assert [r.ms for r in found.rows] == [433]
        assert found.differs == ()
        assert "fp16" in found.sentence  # what the paper leaves open is said even so

    def test_table_4_has_a_row_for_each_t(self) -> None:
        found = compare_with_paper(VIS, REAL)
        assert {r.clip_length: r.ms for r in found.rows} == {1: 184, 3: 174, 6: 171}

    @pytest.mark.parametrize(
        ("config", "facts", "why"),
        [
            (COCO, replace(REAL, soc="SM8550"), "SoC SM8550 instead of SM7325"),
            (COCO, replace(REAL, soc=None), "SoC unknown"),
            (COCO, replace(REAL, emulated=True), "emulated"),
            (COCO, replace(REAL, kind="host"), "a host and no phone"),
            (replace(COCO, input_size=(384, 384)), REAL, "size 384x384 instead of"),
            (replace(COCO, num_queries=50), REAL, "num_queries 50 instead of 100"),
            (replace(COCO, enhancer=False), REAL, "enhancer False instead of True"),
            (replace(COCO, backbone="topformer-tiny"), REAL, "backbone topformer-tiny"),
            (replace(COCO, classes=("cat",)), REAL, "1 classes instead of 80"),
        ],
    )
    def test_one_difference_is_enough_and_is_named(
        self, config: ModelConfig, facts: DeviceFacts, why: str
    ) -> None:
        found = compare_with_paper(config, facts)
        assert found.rows == ()
        assert any(why in clause for clause in found.differs)
        assert "not comparable with the paper's 433 ms" in found.sentence

    def test_whatever_else_differs_is_named_too(self) -> None:
        found = compare_with_paper(COCO, REAL, ["int8 instead of fp32"])
        assert found.rows == ()
        assert found.differs == ("int8 instead of fp32",)

    def test_every_row_is_a_model_that_can_be_built(self) -> None:
        for row in ROWS:
            names = tuple(f"c{i}" for i in range(row.classes))
            config = ModelConfig(row.backbone, names, row.size)
            assert row in compare_with_paper(config, REAL).rows


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="sd778g or tnn-script"):
        protocol.protocol("mlperf")
