"""A phone over adb as a place where the exported pair runs, for verify and run."""

from __future__ import annotations

from types import TracebackType

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.phone.adb import choose_devices
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import Plan, plan_calls
from mobileinst_deploy.phone.session import Session
from mobileinst_deploy.phone.shell import AdbDevice


class AdbRunner:
    """Runs an exported pair on a phone; a :class:`~mobileinst_deploy.core.contract.GraphRunner`.

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
        (chosen,) = choose_devices([serial] if serial is not None else [])
        self.name = f"adb:{chosen.serial}"
        self.emulated = False
        self.limit_seconds = limit_seconds
        self._specs = {role: graph.spec for role, graph in bundle.graphs.items()}
        graphs = {role: graph.files for role, graph in bundle.graphs.items()}
        self.runtime = device_bundle.runtime_name
        self._session = Session(AdbDevice(chosen.serial), device_bundle, graphs, progress)

    def __enter__(self) -> AdbRunner:
        self._session.__enter__()
        self.emulated = self._session.facts.emulated
        if self.emulated:
            self.name += " (emulated)"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order; see :class:`~mobileinst_deploy.core.contract.GraphRunner`."""
        plan = Plan("outputs", plan_calls(self._specs, calls), limit_seconds=self.limit_seconds)
        return self.tensors(plan)

    def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
        """Run a plan and give every call's tensors by name.

        Raises:
            DeviceError: Anything went wrong there.
        """
        return self._session.tensors(plan)
