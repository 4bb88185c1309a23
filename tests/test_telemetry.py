"""Nothing phones home: no file appears, and no thread runs beside the one that works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobileinst_deploy.core.bundle import ExportBundle

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc"
)

#: Opens a session, runs it and prints how many threads came with that.
SCRIPT = """
import os, sys
import numpy as np
from pathlib import Path
from mobileinst_deploy.runtimes.onnxruntime import open_session
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
session = open_session(Path(sys.argv[1]).read_bytes())
session.run(None, {"image": np.zeros((1, 3, 64, 128), np.float32)})
print(threads() - before, os.environ.get("ORT_DISABLE_TELEMETRY"))
"""


def test_a_session_starts_no_thread_and_leaves_no_file(exported: ExportBundle, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(home),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    graph = exported.graphs["frame"].path
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(graph)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["0", "1"], done.stderr
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []


def test_it_is_switched_off_before_onnxruntime_can_load():
    """Whatever is imported first: the switch is in the one module that all others come after."""
    code = (
        "import sys, mobileinst_deploy, os;"
        "assert 'onnxruntime' not in sys.modules;"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment["ORT_DISABLE_TELEMETRY"] = "0"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout == "1\n", done.stderr
