"""examples/phone.sh, with an emulated phone on the cable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]

ROOT = Path(__file__).parent.parent.parent


def test_the_phone_example_proves_measures_follows_and_leaves_nothing(
    phone, pair, real_bundle, tmp_path: Path
) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(4):
        picture = np.full((48, 64, 3), 60 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "clip" / f"{number}.png"), picture)
    command = [ROOT / "examples" / "phone.sh", pair.folder, tmp_path / "clip", tmp_path / "out"]
    short = [
        "--runs",
        "1",
        "--warmup",
        "0",
        "--seconds",
        "0",
        "--clip-lengths",
        "1",
    ]  # too few to be believed
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [*command, *short], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    parity = json.loads((out / "parity.json").read_text())
    assert parity["passed"] is True
    latency = json.loads((out / "latency.json").read_text())
    assert latency["device"]["emulated"] is True
    assert (out / "clip" / "tracks.json").is_file()
