#!/usr/bin/env python3
"""Count the demo model's graphs under qemu and hold them to the recorded counts.

scripts/instruction_counts.py            compare; exit 1 when a graph costs over 1 % more
scripts/instruction_counts.py --accept   record what is counted now
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from recorded_counts import Recorded, insist, read_recorded, write_recorded

from mobileinst_deploy.core.bundle import load_golden
from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.optimize.pair import optimize_pair
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.phone.device_bundle import prepare_bundle
from mobileinst_deploy.runtimes.qemu import QemuRunner

RECORD = Path(__file__).with_name("instruction_counts.json")
ACCEPT = "scripts/instruction_counts.py --accept"


def count_demo(folder: Path) -> Recorded:
    """Export and optimise the demo model in ``folder``, and count both pairs' graphs."""
    plain = export_model(load_model("mobileinst-demo"), folder / "plain")
    optimized, _ = optimize_pair(plain, folder / "optimized")
    golden, device = load_golden(plain), prepare_bundle()
    counts = {}
    for name, pair in (("plain", plain), ("optimized", optimized)):
        runner = QemuRunner(pair, device)
        found = runner.count_instructions(golden.image(0), golden.kernels(0), repeats=1)
        counts |= {f"{name}/{role}": found[role].count for role in found}
    return Recorded(f"onnxruntime {device.runtime_version}", counts)


def main() -> int:
    """Compare or accept; the exit code is that of the command line's errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="record what is counted now")
    accept = parser.parse_args().accept
    try:
        with tempfile.TemporaryDirectory() as name:
            counted = count_demo(Path(name))
        if accept:
            write_recorded(RECORD, counted)
        print("\n".join(insist(read_recorded(RECORD), counted, ACCEPT)))
    except MobileInstError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
