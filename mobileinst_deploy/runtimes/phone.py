"""The exported pair on a phone over adb."""

from __future__ import annotations

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.phone.adb import choose_devices
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import Plan
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.runtimes.device import DeviceRunner


class AdbRunner(DeviceRunner):
    """The pair on a phone.

    Use it as a context manager: entering pushes what the phone lacks, leaving lets go of the phone
    with nothing running on it.

    Args:
        bundle: The pair, as the bundle's runtime takes it.
        device_bundle: From :func:`mobileinst_deploy.phone.device_bundle.prepare_bundle`.
        serial: Which phone; None means the only one.
        limit_seconds: Wall clock for one start of the runner.
        progress: Told of the push and of the runner's progress.

    Raises:
        DeviceError: There is no such phone, or it cannot be used.
    """

    def __init__(
        self,
        bundle: ExportBundle,
        device_bundle: DeviceBundle,
        serial: str | None = None,
        *,
        limit_seconds: int = 3600,
        progress: Progress = silent,
    ) -> None:
        super().__init__(bundle, device_bundle, limit_seconds)
        (chosen,) = choose_devices([serial] if serial is not None else [])
        self.name = f"adb:{chosen.serial}"
        self.emulated = False
        graphs = {role: graph.files for role, graph in bundle.graphs.items()}
        self._session = Session(AdbDevice(chosen.serial), device_bundle, graphs, progress)

    def __enter__(self) -> AdbRunner:
        self._session.__enter__()
        self.emulated = self._session.facts.emulated
        if self.emulated:
            self.name += " (emulated)"
        return self

    def __exit__(self, *_: object) -> None:
        self._session.__exit__(None, None, None)

    def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
        """Run a plan and give every call's tensors by name.

        Raises:
            DeviceError: Anything went wrong there.
        """
        return self._session.tensors(plan)
