"""ncnn on this machine, through its Python package: one thread, fp32."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import GraphSpec, Role, Tensors
from mobileinst_deploy.core.errors import BundleError, DeviceError
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.runtimes.host import HostRunner

#: Without its dependencies: opencv-python among them would overwrite the headless build.
INSTALL = f"{sys.executable} -m pip install --no-deps ncnn"

_HALF = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")
_INT8 = ("int8_inference", "int8_packed", "int8_storage", "int8_arithmetic")


class NcnnRunner(HostRunner):
    """ncnn here.

    Args:
        bundle: From :func:`mobileinst_deploy.runtimes.ncnn.convert.as_ncnn`.

    Raises:
        DeviceError: The package ncnn is not installed.
    """

    def __init__(self, bundle: ExportBundle) -> None:
        super().__init__(bundle)
        try:
            self._ncnn = importlib.import_module("ncnn")
            version = importlib.metadata.version("ncnn")
        except ImportError:
            raise DeviceError(
                "the Python package ncnn is not installed, so ncnn cannot run on this machine",
                f"Run `{INSTALL}`",
            ) from None
        self.runtime = f"ncnn {version}"
        self._networks: dict[Role, Any] = {}

    def load(self, role: Role) -> Any:
        """The network of a graph, loaded when it is first asked for.

        Raises:
            BundleError: ncnn refuses it.
        """
        if role not in self._networks:
            network = self._ncnn.Net()
            network.opt.num_threads = 1
            for name in (*_HALF, *_INT8, "vulkan_compute"):
                setattr(network.opt, f"use_{name}", False)
            # On x86 its layer normalisation takes a 12-bit reciprocal root where values are packed:
            # outputs are then off by 1e-3. ARM's is exact either way.
            network.opt.use_packing_layout = False
            files = self.bundle.graphs[role].files
            # From a folder that nobody else writes to: what is loaded is what was checked.
            with scratch_folder() as folder:
                param, weights = (str(file.write(folder)) for file in files)
                if network.load_param(param) != 0 or network.load_model(weights) != 0:
                    raise BundleError(
                        f"ncnn cannot load {files[0].path}",
                        "Remove it, so that it is converted anew",
                    )
            self._networks[role] = network
        return self._networks[role]

    def ready(self, role: Role, inputs: Tensors) -> _ReadyRun:
        """Hand the inputs over; see :class:`~mobileinst_deploy.runtimes.host.HostRunner`."""
        extractor = self.load(role).create_extractor()
        return _ReadyRun(self._ncnn, extractor, self.bundle.graphs[role].spec, inputs)


class _ReadyRun:
    """Inputs that the extractor has been given."""

    def __init__(self, ncnn: Any, extractor: Any, spec: GraphSpec, inputs: Tensors) -> None:
        self._extractor = extractor
        self._spec = spec
        # It knows no batch axis, and only borrows what it is given: the arrays live until the end.
        self._given = {name: np.ascontiguousarray(array[0]) for name, array in inputs.items()}
        for name, array in self._given.items():
            if extractor.input(name, ncnn.Mat(array)) != 0:
                raise DeviceError(
                    f"ncnn refuses {name} in the {spec.role} graph", "Export it again"
                )
        self._lengths = {
            axis: length
            for tensor in spec.inputs
            for axis, length in zip(tensor.shape, inputs[tensor.name].shape, strict=True)
            if isinstance(axis, str)
        }
        self._extracted: list[tuple[int, Any]] = []

    def compute(self) -> None:
        """Ask for the outputs: ncnn computes one, and all that it needs, when it is asked for."""
        self._extracted = [self._extractor.extract(tensor.name) for tensor in self._spec.outputs]

    def outputs(self) -> dict[str, np.ndarray]:
        """See :class:`~mobileinst_deploy.runtimes.host.ReadyRun`."""
        outputs: dict[str, np.ndarray] = {}
        for tensor, (status, mat) in zip(self._spec.outputs, self._extracted, strict=True):
            shape = tuple(self._lengths[v] if isinstance(v, str) else v for v in tensor.shape)
            array = np.array(mat)
            if status != 0 or array.size != np.prod(shape) or array.dtype != np.float32:
                raise DeviceError(
                    f"ncnn gave {tensor.name} of the {self._spec.role} graph as {array.dtype}"
                    f" {array.shape} instead of float32 {shape}",
                    "Export the model again so that its manifest and its graphs belong together",
                )
            outputs[tensor.name] = array.reshape(shape)
        return outputs
