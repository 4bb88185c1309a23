#!/usr/bin/env python3
"""Ask the gate about pairs that are slower by known shares, many times, and count its answers.

    scripts/gate_trials.py PAIR [--trials 20] [--slower 0,3,6,12] [--fail-above 5%] [--seconds 10]

The slower pair is the same pair, whose runner after each run waits busily for that share of what
the run took: so its slowdown is exact. It needs a quiet machine: noise that the gate sees makes it
answer "unknown" (exit 4 of `mobileinst bench --against`), which is right, and no use.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.contract import Role, Tensors
from mobileinst_deploy.measure.protocol import protocol
from mobileinst_deploy.measure.samples import clip_times
from mobileinst_deploy.measure.slowdown import paired
from mobileinst_deploy.runtimes import open_host
from mobileinst_deploy.runtimes.host import HostRunner, ReadyRun
from mobileinst_deploy.workflows.against import parse_share
from mobileinst_deploy.workflows.bench_targets import BenchSettings
from mobileinst_deploy.workflows.host_clips import HostEntry, measure_in_turn


class Slower(HostRunner):
    """A runner that takes a known share longer."""

    def __init__(self, bundle: ExportBundle, share: float) -> None:
        super().__init__(bundle)
        self._runner, self._share = open_host(bundle), share
        self.runtime = self._runner.runtime

    def load(self, role: Role) -> Any:
        """Load a graph."""
        return self._runner.load(role)

    def ready(self, role: Role, inputs: Tensors) -> ReadyRun:
        """The inner runner's, made slower."""
        return _SlowRun(self._runner.ready(role, inputs), self._share)


class _SlowRun:
    def __init__(self, ready: ReadyRun, share: float) -> None:
        self._ready, self._share = ready, share

    def compute(self) -> None:
        begun = time.perf_counter()
        self._ready.compute()
        ended = time.perf_counter()
        until = ended + self._share * (ended - begun)
        while time.perf_counter() < until:
            pass

    def outputs(self) -> dict[str, np.ndarray]:
        return self._ready.outputs()


def main() -> int:
    """Run the trials and print what the gate said."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pair", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--slower", default="0,3,6,12", help="shares in %%; default: %(default)s")
    parser.add_argument("--fail-above", default="5%")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each T; default: 10")
    parser.add_argument("--clip-length", type=int, default=3)
    options = parser.parse_args()
    pair, limit = load_bundle(options.pair), parse_share(options.fail_above)
    used, live = protocol("sd778g", seconds=options.seconds), BenchSettings().live(pair)
    print(f"limit {limit:.0%}, {options.trials} trials each, T = {options.clip_length}")
    print("| slower by | slower | not slower | unknown | measured, median | widest interval |")
    print("|---|---|---|---|---|---|")
    for percent in map(float, options.slower.split(",")):
        answers: Counter[str] = Counter()
        ratios, widths = [], []
        for _ in range(options.trials):
            runners = (open_host(pair), Slower(pair, percent / 100))
            entries = [HostEntry(runner, pair, live) for runner in runners]
            old, new = (
                clip_times(measured.schedules[0])
                for measured in measure_in_turn(entries, used, [options.clip_length])
            )
            found = paired(options.clip_length, old, new)
            answers[found.answer(limit)] += 1
            ratios.append(found.ratio)
            widths.append(found.high - found.low)
        counts = " | ".join(str(answers[a]) for a in ("slower", "not slower", "unknown"))
        print(f"| {percent:g} % | {counts} | {np.median(ratios) - 1:+.1%} | {max(widths):.1%} |")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
