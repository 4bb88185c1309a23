"""The folder that goes to the phone: runner, ONNX Runtime and glibc, pinned by sha256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOADER = "ld-linux-aarch64.so.1"
RUNNER = "mobileinst_runner"
LIBRARY = "libonnxruntime.so"


@dataclass(frozen=True)
class BundleFile:
    """One file of the bundle.

    Attributes:
        name: Its name in the folder; the bundle is flat.
        sha256: Lower-case hex digest.
        bytes: Its size.
        executable: Whether it is started, and so needs mode 755.
    """

    name: str
    sha256: str
    bytes: int
    executable: bool


@dataclass(frozen=True)
class DeviceBundle:
    """The assembled folder.

    Attributes:
        folder: On this machine.
        files: Everything to push, in name order.
        sha256: Content hash over names, digests and modes; the folder's name on the device.
        runtime_version: Version of the ONNX Runtime inside, the host's own.
        compiler: What built the runner.
    """

    folder: Path
    files: tuple[BundleFile, ...]
    sha256: str
    runtime_version: str
    compiler: str

    def command(self, remote: str, plan: str) -> list[str]:
        """How to start the runner where the bundle lies.

        Args:
            remote: Absolute path of the bundle's folder there.
            plan: Absolute path of the plan there.
        """
        return [f"{remote}/{LOADER}", "--library-path", remote, f"{remote}/{RUNNER}", plan]

    def library(self, remote: str) -> str:
        """Path of ONNX Runtime where the bundle lies, for :meth:`Plan.write`."""
        return f"{remote}/{LIBRARY}"
