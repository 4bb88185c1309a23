"""A tracker's saved state: what any of them may leave is taken, all else is refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from track_checker import FAST, Checker

#: The status of a state that no tracker can have left.
BAD_STATE = 4


class TestState:
    """A state comes from a file: whatever it holds, it is loaded whole or refused."""

    @given(st.data())
    @settings(FAST, max_examples=150)
    def test_no_bytes_harm_the_tracker(self, checker: Checker, data: st.DataObject):
        fed, _, text = checker.say("state").split()
        sound = bytearray.fromhex(text)
        assert fed == "4", "no bytes are no state"
        for place in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=4)):
            sound[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, 8))
        spoilt = bytes(sound[: len(sound) - cut]) + data.draw(st.binary(max_size=4))
        status, after = checker.say(f"state {spoilt.hex()}").split()[:2]
        assert status in ("0", "4")
        assert after == "0", "the tracker goes on either way"
        if len(spoilt) != len(sound):
            assert status == "4"

    def test_a_sound_one_is_loaded(self, checker: Checker):
        assert checker.say(f"state {State().packed().hex()}") == "0 0"

    @pytest.mark.parametrize("kernel", [(1.0, 0.0), (0.6, -0.8), (0.0, 0.0)])
    def test_directions_of_length_one_or_zero_are_believed(
        self, checker: Checker, kernel: tuple[float, float]
    ):
        assert checker.say(f"state {State(kernel=kernel).packed().hex()}") == "0 0"

    @pytest.mark.parametrize(
        "change",
        [
            {"kernel": (3.4e38, -3.4e38)},
            {"kernel": (2.0, 0.0)},
            {"kernel": (0.5, 0.5)},
            {"kernel": (np.nan, 0.0)},
            {"kernel": (1e-20, 0.0)},
            {"logits": (3e38, 0.0)},
            {"logits": (-np.inf, 0.0)},
            {"objectness": 1e300},
            {"objectness": np.nan},
            {"live_kernel": (2e30, 0.0)},
            {"live_kernel": (np.inf, 0.0)},
            {"place": 2**63},
            {"ids": (2, 2)},
            {"ids": (0, 1)},
            {"ids": (1, 3)},
            {"keyframes": 0},
            {"keyframes": 2**60},
            {"missed": (1, 1)},
            {"missed": (0, -1)},
            {"missed": (0, 2**60)},
            {"born": -1},
            {"born": 2**62},
            {"since": -1},
            {"since": 2**62},
            {"counts": (3, 1)},
            {"counts": (2**63, 2**63)},
            {"counts": (1, 2**63)},
            {"counts": (1, 2**40)},
            {"sizes": (3, 2)},
            {"cell": -1},
            {"cell": 2**31 - 1},
            {"sure": 1.5},
            {"sure": np.nan},
        ],
        ids=lambda change: "-".join(f"{k}={v}" for k, v in change.items()),
    )
    def test_an_impossible_one_is_refused(self, checker: Checker, change: dict[str, object]):
        spoilt = State(**change).packed()
        assert checker.say(f"state {spoilt.hex()}") == f"{BAD_STATE} 0"


@dataclass(frozen=True)
class State:
    """A state of the tracker that ``track_check state`` has: C = D = 2, one live and one hidden."""

    counts: tuple[int, int] = (1, 1)
    sizes: tuple[int, int] = (2, 2)
    born: int = 2
    since: int = 0
    cell: int = 9
    sure: float = 0.5
    ids: tuple[int, int] = (1, 2)
    keyframes: int = 1
    missed: tuple[int, int] = (0, 1)
    objectness: float = 0.5
    kernel: tuple[float, float] = (1.0, 0.0)
    logits: tuple[float, float] = (1.0, -1.0)
    live_kernel: tuple[float, float] = (5.0, 0.0)
    place: int = 0b1

    def packed(self) -> bytes:
        head = struct.pack(
            "<8s4Q2qQi2d",
            b"MITRACK3",
            *self.sizes,
            *self.counts,
            self.born,
            self.since,
            1,
            self.cell,
            self.sure,
            self.sure,
        )
        tracks = (
            struct.pack(
                "<3qd4f", i, self.keyframes, missed, self.objectness, *self.kernel, *self.logits
            )
            for i, missed in zip(self.ids, self.missed, strict=True)
        )
        live = struct.pack("<2fQ", *self.live_kernel, self.place)
        return head + b"".join(tracks) + live
