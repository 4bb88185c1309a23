"""The contract of the two graphs: names, dtypes and shapes of what goes in and comes out.

The one place where tensor names are written. Export, verification, every runtime, the phone's
runner and the manifest all read them here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np

from mobileinst_deploy.core.config import X6_CHANNELS, ModelConfig
from mobileinst_deploy.core.errors import InputError
from mobileinst_deploy.core.needs import Description

Role = Literal["frame", "mask_head"]

ROLES: tuple[Role, ...] = get_args(Role)

#: The picture, (1,3,H,W) float32, RGB, 0 to 255: the input of both graphs.
IMAGE = "image"
#: Outputs of the frame graph, per query: class scores before the sigmoid, how well the mask fits,
#: and what makes the mask of the mask features.
CLASS_LOGITS = "class_logits"
OBJECTNESS_LOGITS = "objectness_logits"
KERNELS = "kernels"
#: Output of both graphs.
MASK_LOGITS = "mask_logits"

#: ONNX operator sets that the graphs can be written in.
OPSETS = range(13, 21)
DEFAULT_OPSET = 17
_FROM_THE_KEYFRAME = "Hand over what this pair's frame graph gave for the latest keyframe"
_FROM_A_PICTURE = "Prepare pictures for the model's own input size"

#: Arrays by tensor name.
Tensors = Mapping[str, np.ndarray]


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

    def input(self, name: str) -> TensorSpec:
        """The input of that name."""
        return next(tensor for tensor in self.inputs if tensor.name == name)

    def check_inputs(self, given: Tensors) -> None:
        """Refuse what this graph cannot be given, before a runtime says so in its own words.

        Args:
            given: Arrays by tensor name.

        Raises:
            InputError: One is missing, unknown, or of another dtype or shape, or two disagree about
                a free axis.
        """
        lengths: dict[str, int] = {}
        for tensor in self.inputs:
            array = given.get(tensor.name)
            if array is None or not tensor.accepts(array):
                got = "nothing" if array is None else f"{array.dtype} {array.shape}"
                raise InputError(
                    f"the {self.role} graph's {tensor.name} takes {tensor.dtype} {tensor.shape} "
                    f"and was given {got}",
                    _FROM_THE_KEYFRAME if is_carried(tensor.name) else _FROM_A_PICTURE,
                )
            for want, length in zip(tensor.shape, array.shape, strict=True):
                if isinstance(want, str) and lengths.setdefault(want, length) != length:
                    raise InputError(
                        f"the {self.role} graph's inputs disagree about the free axis {want}",
                        "Give every input the same number of kernels",
                    )
        if unknown := sorted(set(given) - {tensor.name for tensor in self.inputs}):
            raise InputError(
                f"the {self.role} graph has no input {', '.join(unknown)}",
                "Give it what its pair's manifest names",
            )


def graph_specs(config: Description, dynamic_kernels: bool = True) -> dict[Role, GraphSpec]:
    """The signatures of a model's two graphs; the one place where tensor names are written.

    ``frame``: image to class_logits (1,N,C), objectness_logits (1,N,1), kernels (1,N,D),
    mask_logits (1,N,h,w). ``mask_head``: image and kernels (1,n,D) to mask_logits (1,n,h,w).
    ``image`` is (1,3,H,W), RGB, 0 to 255.

    With context reuse the frame graph also gives, after these, what the mask-head graph then takes
    after the kernels: ``context_x6``, or ``context_p`` and ``context_m``, the results of the mask
    decoder's two top-down passes (1,D,H/32,W/32) for ``x5`` and (1,D,H/16,W/16) for ``x4``. All
    that a reuse frame is given must be of one keyframe.

    Args:
        config: The model.
        dynamic_kernels: Whether the mask-head graph takes any number n of kernels, or exactly N.
    """
    height, width = config.input_size
    n, d = config.num_queries, config.width
    live: int | str = "n" if dynamic_kernels else n
    image = TensorSpec(IMAGE, "float32", (1, 3, height, width))
    context = _context(config)
    return {
        "frame": GraphSpec(
            "frame",
            (image,),
            (
                TensorSpec(CLASS_LOGITS, "float32", (1, n, config.num_classes)),
                TensorSpec(OBJECTNESS_LOGITS, "float32", (1, n, 1)),
                TensorSpec(KERNELS, "float32", (1, n, d)),
                TensorSpec(MASK_LOGITS, "float32", (1, n, *config.mask_size)),
                *context,
            ),
        ),
        "mask_head": GraphSpec(
            "mask_head",
            (image, TensorSpec(KERNELS, "float32", (1, live, d)), *context),
            (TensorSpec(MASK_LOGITS, "float32", (1, live, *config.mask_size)),),
        ),
    }


def is_carried(name: str) -> bool:
    """Whether a tensor of that name goes from the frame graph to the mask-head graph."""
    return name == KERNELS or name.startswith("context_")


def _context(config: Description) -> tuple[TensorSpec, ...]:
    """What passes from a keyframe to its reuse frames beside the kernels."""
    if not isinstance(config, ModelConfig) or config.reuse_context == "none":
        return ()
    height, width = config.input_size
    if config.reuse_context == "x6":
        shape = (1, X6_CHANNELS[config.backbone], height // 64, width // 64)
        return (TensorSpec("context_x6", "float32", shape),)
    stride = 32 if config.reuse_context == "x5" else 16
    shape = (1, config.width, height // stride, width // stride)
    return tuple(TensorSpec(f"context_{name}", "float32", shape) for name in ("p", "m"))


@dataclass(frozen=True)
class Call:
    """One run of one graph: its role and its inputs by tensor name."""

    role: Role
    inputs: Tensors = field(repr=False)


class GraphRunner(Protocol):
    """Whatever computes a pair's graphs: this machine, a phone over adb, qemu, PyTorch.

    The one protocol for all of them. What is tracked, verified, run or evaluated is a runner, and
    a runtime of one's own needs no more than this.

    Attributes:
        name: Where it runs, for people and reports, such as ``cpu`` or ``adb:SERIAL``.
        runtime: What runs the graphs there, such as ``onnxruntime 1.32.0``.
        emulated: Whether its times must never be shown as latencies.
        specs: The signatures of the graphs.
    """

    name: str
    runtime: str
    emulated: bool
    specs: Mapping[Role, GraphSpec]

    def outputs(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order and return its outputs by tensor name.

        Raises:
            DeviceError: The device is gone, refused or crashed.
        """
        ...
