"""A pair computed on this machine, whichever runtime does it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import ROLES, Call, GraphSpec, Role, Tensors


class ReadyRun(Protocol):
    """One run of a graph whose inputs lie in the runtime's hands already."""

    def compute(self) -> None:
        """Run the graph: nothing but the runtime's own call.

        Raises:
            DeviceError: The runtime failed.
        """
        ...

    def outputs(self) -> dict[str, np.ndarray]:
        """What it computed, by tensor name.

        Raises:
            DeviceError: The runtime gave something else than the graph's signature says.
        """
        ...


class HostRunner(ABC):
    """A :class:`~mobileinst_deploy.core.contract.GraphRunner` on this machine.

    A graph is loaded when it is first asked for, so that a broken one can be described by what is
    wrong with it before the runtime refuses it.

    Args:
        bundle: The pair, as the runtime takes it.
    """

    name = "cpu"
    emulated = False
    runtime: str

    def __init__(self, bundle: ExportBundle) -> None:
        self.bundle = bundle
        self.specs: Mapping[Role, GraphSpec] = bundle.specs

    @abstractmethod
    def load(self, role: Role) -> Any:
        """Load a graph, once.

        Raises:
            BundleError: The runtime refuses it.
        """

    @abstractmethod
    def ready(self, role: Role, inputs: Tensors) -> ReadyRun:
        """Hand a graph its inputs, so that what follows is inference alone.

        Raises:
            BundleError: The runtime cannot load the graph.
            DeviceError: The runtime refuses an input.
        """

    def run(self, role: Role, inputs: Tensors) -> dict[str, np.ndarray]:
        """Run one graph once.

        Raises:
            InputError: The graph cannot be given this.
            BundleError: The runtime cannot load it.
            DeviceError: The runtime failed.
        """
        self.specs[role].check_inputs(inputs)
        ready = self.ready(role, inputs)
        ready.compute()
        return ready.outputs()

    def load_both(self) -> None:
        """Load both graphs now: a measurement must not begin with that.

        Raises:
            BundleError: The runtime refuses one.
        """
        for role in ROLES:
            self.load(role)

    def outputs(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order; see :class:`~mobileinst_deploy.core.contract.GraphRunner`."""
        return [self.run(call.role, call.inputs) for call in calls]
