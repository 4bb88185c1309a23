"""A pair computed by the on-device runner: on a phone, or under qemu."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import Call, GraphSpec, Role
from mobileinst_deploy.phone.device_bundle import DeviceBundle
from mobileinst_deploy.phone.plan import Plan, plan_calls


class DeviceRunner(ABC):
    """A :class:`~mobileinst_deploy.core.contract.GraphRunner` that starts the on-device runner.

    Args:
        bundle: The pair, as the device bundle's runtime takes it.
        device_bundle: From :func:`mobileinst_deploy.phone.device_bundle.prepare_bundle`.
        limit_seconds: Wall clock for one start.
    """

    name: str
    emulated: bool

    def __init__(
        self, bundle: ExportBundle, device_bundle: DeviceBundle, limit_seconds: int
    ) -> None:
        self.bundle = bundle
        self.device_bundle = device_bundle
        self.runtime = device_bundle.runtime_name
        self.specs: Mapping[Role, GraphSpec] = bundle.specs
        self.limit_seconds = limit_seconds

    @abstractmethod
    def tensors(self, plan: Plan) -> list[dict[str, np.ndarray]]:
        """Run a plan and give every call's tensors by name.

        Raises:
            DeviceError: Anything went wrong there.
        """

    def outputs(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order; see :class:`~mobileinst_deploy.core.contract.GraphRunner`."""
        return self.tensors(
            Plan("outputs", plan_calls(self.specs, calls), limit_seconds=self.limit_seconds)
        )
