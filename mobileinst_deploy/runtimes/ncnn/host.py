"""ncnn on this machine, through its Python package: one thread, fp32."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import ROLES, Call, Role
from mobileinst_deploy.core.errors import BundleError, DeviceError

#: Without its dependencies: opencv-python among them would overwrite the headless build.
INSTALL = f"{sys.executable} -m pip install --no-deps ncnn"

_HALF = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")
_INT8 = ("int8_inference", "int8_packed", "int8_storage", "int8_arithmetic")


class NcnnRunner:
    """Runs a converted pair here; a :class:`~mobileinst_deploy.core.contract.GraphRunner`.

    Args:
        bundle: From :func:`mobileinst_deploy.runtimes.ncnn.convert.as_ncnn`.

    Raises:
        DeviceError: The package ncnn is not installed.
    """

    name = "cpu"
    emulated = False

    def __init__(self, bundle: ExportBundle) -> None:
        try:
            self._ncnn = importlib.import_module("ncnn")
            version = importlib.metadata.version("ncnn")
        except ImportError:
            raise DeviceError(
                "the Python package ncnn is not installed, so ncnn cannot run on this machine",
                f"Run `{INSTALL}`",
            ) from None
        self.runtime = f"ncnn {version}"
        self._bundle = bundle
        self._networks: dict[Role, Any] = {}

    def load(self) -> None:
        """Load both graphs now: a measurement must not begin with that.

        Raises:
            BundleError: ncnn refuses one.
        """
        for role in ROLES:
            self._network(role)

    def _network(self, role: Role) -> Any:
        if role not in self._networks:
            network = self._ncnn.Net()
            network.opt.num_threads = 1
            for name in (*_HALF, *_INT8, "vulkan_compute"):
                setattr(network.opt, f"use_{name}", False)
            # On x86 its layer normalisation takes a 12-bit reciprocal root where values are packed:
            # outputs are then off by 1e-3. ARM's is exact either way.
            network.opt.use_packing_layout = False
            param, weights = map(str, self._bundle.graphs[role].files)
            if network.load_param(param) != 0 or network.load_model(weights) != 0:
                raise BundleError(
                    f"ncnn cannot load {param}", "Remove it, so that it is converted anew"
                )
            self._networks[role] = network
        return self._networks[role]

    def run(self, role: Role, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph once.

        Raises:
            BundleError: ncnn cannot load it.
            DeviceError: ncnn failed.
        """
        spec = self._bundle.graphs[role].spec
        extractor = self._network(role).create_extractor()
        # It knows no batch axis, and only borrows what it is given: the arrays live until the end.
        given = {name: np.ascontiguousarray(array[0]) for name, array in inputs.items()}
        for name, array in given.items():
            if extractor.input(name, self._ncnn.Mat(array)) != 0:
                raise DeviceError(f"ncnn refuses {name} in the {role} graph", "Export it again")
        lengths = {
            axis: length
            for tensor in spec.inputs
            for axis, length in zip(tensor.shape, inputs[tensor.name].shape, strict=True)
            if isinstance(axis, str)
        }
        outputs: dict[str, np.ndarray] = {}
        for tensor in spec.outputs:
            status, mat = extractor.extract(tensor.name)
            shape = tuple(lengths[v] if isinstance(v, str) else v for v in tensor.shape)
            array = np.array(mat)
            if status != 0 or array.size != np.prod(shape) or array.dtype != np.float32:
                raise DeviceError(
                    f"ncnn gave {tensor.name} of the {role} graph as {array.dtype} {array.shape}"
                    f" instead of float32 {shape}",
                    "Export the model again so that its manifest and its graphs belong together",
                )
            outputs[tensor.name] = array.reshape(shape)
        return outputs

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order; see :class:`~mobileinst_deploy.core.contract.GraphRunner`."""
        return [self.run(call.role, dict(call.inputs)) for call in calls]
