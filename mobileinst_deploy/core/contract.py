"""The contract of the two graphs: names, dtypes and shapes of what goes in and comes out.

The one place where tensor names are written. Export, verification, every runtime, the phone's
runner and the manifest all read them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np

from mobileinst_deploy.core.needs import Description

Role = Literal["frame", "mask_head"]

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class TensorSpec:
    """One named graph input or output.

    Attributes:
        name: Tensor name in the graph.
        dtype: numpy's name for the element type, ``float32`` throughout this project's graphs.
        shape: One entry per axis: a length, or a symbol such as ``"n"`` for a free axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def accepts(self, array: np.ndarray) -> bool:
        """Whether an array has this dtype and shape; a symbol accepts any length."""
        return (
            array.dtype == np.dtype(self.dtype)
            and array.ndim == len(self.shape)
            and all(
                isinstance(want, str) or want == got
                for want, got in zip(self.shape, array.shape, strict=True)
            )
        )


@dataclass(frozen=True)
class GraphSpec:
    """The signature of one exported graph.

    Attributes:
        role: ``frame`` for keyframes, ``mask_head`` for reuse frames.
        inputs: In graph order.
        outputs: In graph order.
    """

    role: Role
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def graph_specs(config: Description, dynamic_kernels: bool = True) -> dict[Role, GraphSpec]:
    """The signatures of a model's two graphs; the one place where tensor names are written.

    ``frame``: image to class_logits (1,N,C), objectness_logits (1,N,1), kernels (1,N,D),
    mask_logits (1,N,h,w). ``mask_head``: image and kernels (1,n,D) to mask_logits (1,n,h,w).
    ``image`` is (1,3,H,W), RGB, 0 to 255.

    Args:
        config: The network.
        dynamic_kernels: Whether the mask-head graph takes any number n of kernels, or exactly N.
    """
    height, width = config.input_size
    n, d = config.num_queries, config.width
    live: int | str = "n" if dynamic_kernels else n
    image = TensorSpec("image", "float32", (1, 3, height, width))
    return {
        "frame": GraphSpec(
            "frame",
            (image,),
            (
                TensorSpec("class_logits", "float32", (1, n, config.num_classes)),
                TensorSpec("objectness_logits", "float32", (1, n, 1)),
                TensorSpec("kernels", "float32", (1, n, d)),
                TensorSpec("mask_logits", "float32", (1, n, *config.mask_size)),
            ),
        ),
        "mask_head": GraphSpec(
            "mask_head",
            (image, TensorSpec("kernels", "float32", (1, live, d))),
            (TensorSpec("mask_logits", "float32", (1, live, *config.mask_size)),),
        ),
    }


@dataclass(frozen=True)
class Call:
    """One run of one graph: its role and its inputs by tensor name."""

    role: Role
    inputs: Mapping[str, np.ndarray] = field(repr=False)


class GraphRunner(Protocol):
    """Whatever can run the exported pair: this machine, a phone over adb, qemu.

    Attributes:
        name: For people and reports, such as ``cpu`` or ``adb:SERIAL``.
        runtime: What runs the graphs there, such as ``onnxruntime 1.32.0``.
        emulated: Whether its times must never be shown as latencies.
    """

    name: str
    runtime: str
    emulated: bool

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order and return its outputs by tensor name.

        Raises:
            DeviceError: The device is gone, refused or crashed.
        """
        ...
