"""A shell script in the runner's place, on a real phone: it does what a test tells it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.errors import EXIT_NO_DEVICE, MobileInstError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import Plan
from mobileinst_deploy.phone.result import BEGIN
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice

#: Where the fake runner looks for what it shall do.
BEHAVIOUR = "/data/local/tmp/behaviour.sh"
#: Called as the loader is: --library-path FOLDER RUNNER PLAN
LOADER_SCRIPT = f"""#!/system/bin/sh
out=${{4%/*}}/out
mkdir $out
. {BEHAVIOUR}
"""
PLAN = Plan("outputs", (), limit_seconds=20)
GOOD: dict[str, Any] = {
    "schema": 1,
    "ok": True,
    "mode": "outputs",
    "abi": "aarch64",
    "runtime": {"name": "onnxruntime", "version": "1.32.0"},
    "core": {"asked": None, "affinity": [0, 1]},
    "peak_memory_kib": 1000,
    "graphs": {},
    "calls": [],
}


def result(document: dict[str, Any] | str) -> str:
    """Shell text that prints a result as the runner does."""
    text = document if isinstance(document, str) else json.dumps(document)
    return (
        f"cat <<'XX'\n{BEGIN}\n{text}\n=====MOBILEINST-RESULT-END {len(text.encode())}=====\nXX\n"
    )


def with_tensor(name: str, data: bytes, **change: Any) -> dict[str, Any]:
    """A result that says that a tensor of float32 was written."""
    tensor = {
        "name": "kernels",
        "dtype": "float32",
        "shape": [len(data) // 4],
        "file": name,
        "bytes": len(data),
        "crc32": f"{zlib.crc32(data):08x}",
        **change,
    }
    call = {"role": "frame", "prepare_ms": 1.0, "run_ms": 1.0, "results": [tensor]}
    return {**GOOD, "calls": [call]}


class FakeRunner:
    """Runs of a shell script in the runner's place."""

    def __init__(self, pair: ExportBundle, bundle: DeviceBundle, folder: Path) -> None:
        self._graphs = {role: graph.files for role, graph in pair.graphs.items()}
        self.bundle = bundle
        self.folder = folder
        self._script = folder / Path(BEHAVIOUR).name

    def session(self, serial: str, progress: Progress = silent) -> Session:
        return Session(AdbDevice(serial), self.bundle, self._graphs, progress)

    def behave(self, serial: str, script: str) -> None:
        self._script.write_text(script)
        AdbDevice(serial).push([self._script], str(Path(BEHAVIOUR).parent))


def broken(error: pytest.ExceptionInfo[MobileInstError], *words: str) -> None:
    assert error.value.exit_code == EXIT_NO_DEVICE
    for word in words:
        assert word in str(error.value)
