"""How far turns of one measurement are apart, and which of them count."""

from __future__ import annotations

from dataclasses import replace

from latency_records import record_of

from mobileinst_deploy.measure.repeats import agreement

TURNS = [record_of({1: (ms, None)}, noise=0.0) for ms in (10.0, 11.0, 10.5)]


def test_the_median_and_the_range_of_the_turns_are_told():
    (line,) = agreement(TURNS)
    assert "10.5 ms a frame, the median of 3 turns from 10.0 to 11.0 (9.5%)" in line


def test_one_turn_an_invalid_one_and_an_emulated_one_say_nothing():
    emulated = replace(TURNS[1], device=replace(TURNS[1].device, emulated=True))
    assert agreement([TURNS[0], replace(TURNS[1], invalid=("hot",)), emulated]) == ()
