"""Both graphs of a pair a frame at a time, with what comes back held to their contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobileinst_deploy.core.contract import (
    IMAGE,
    KERNELS,
    MASK_LOGITS,
    Call,
    GraphRunner,
    Tensors,
)
from mobileinst_deploy.core.errors import DeviceError

#: No network gives more; beyond it, means would overflow.
_LARGEST = 1e30


class Graphs:
    """The pair that a runner computes, called a frame at a time.

    What comes back may come from a phone or a stranger's runtime, and is checked.

    Args:
        runner: Computes the graphs. A mask-head graph of a fixed number of kernels is given zeros
            for the missing ones.
    """

    def __init__(self, runner: GraphRunner) -> None:
        self._runner = runner
        inputs = {tensor.name: tensor for tensor in runner.specs["mask_head"].inputs}
        self._carried = tuple(name for name in inputs if name != IMAGE)
        (masks,) = runner.specs["mask_head"].outputs
        #: (height, width) of the mask logits.
        self.mask_size = tuple(int(length) for length in masks.shape[2:])
        slots = inputs[KERNELS].shape[1]
        self._slots = slots if isinstance(slots, int) else None

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Segment a keyframe.

        Args:
            image: (1, 3, H, W) float32, RGB, 0 to 255.

        Returns:
            The frame graph's outputs by tensor name.

        Raises:
            InputError: The image is of another size.
            DeviceError: The runner failed or returned what the graph cannot have made.
        """
        return self.frames([image])[0]

    def frames(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Segment several keyframes at once, which saves a device's runner a start for each.

        Raises:
            DeviceError: As for :meth:`frame`.
        """
        return self._call([Call("frame", {IMAGE: image}) for image in images])

    def mask_head(self, image: np.ndarray, keyframe: Tensors) -> np.ndarray:
        """Segment a reuse frame.

        Args:
            image: (1, 3, H, W) float32, RGB, 0 to 255.
            keyframe: What its keyframe's :meth:`frame` gave, with the kernels (1, n, D) wanted; the
                graph takes of it what it asks for.

        Returns:
            Mask logits (1, n, H/8, W/8) float32.

        Raises:
            InputError: The keyframe's results lack something, or are of another pair or size. That
                kernels and context are of two keyframes cannot be told.
            DeviceError: As for :meth:`frame`.
        """
        carried = {name: keyframe[name] for name in self._carried if name in keyframe}
        kernels = carried.get(KERNELS)
        live = 0 if kernels is None else kernels.shape[1]
        if self._slots is not None and kernels is not None:
            carried[KERNELS] = np.pad(kernels, ((0, 0), (0, self._slots - live), (0, 0)))
        call = Call("mask_head", {IMAGE: image, **carried})
        return self._call([call])[0][MASK_LOGITS][:, :live]

    def _call(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        for call in calls:
            self._runner.specs[call.role].check_inputs(call.inputs)
        found = self._runner.outputs(calls)
        if len(found) != len(calls):
            raise DeviceError(
                f"{self._runner.name} answered {len(found)} of {len(calls)} runs",
                "Run it again",
            )
        for call, outputs in zip(calls, found, strict=True):
            for tensor in self._runner.specs[call.role].outputs:
                value = outputs.get(tensor.name)
                if value is None or not tensor.accepts(value) or not _usable(value):
                    raise DeviceError(
                        f"{self._runner.name} returned no usable {tensor.name} from the"
                        f" {call.role} graph",
                        "Check the exported pair there with `mobileinst verify`",
                    )
        return found


def _usable(value: np.ndarray) -> bool:
    """Whether every number is one that a network gives: not NaN, not beyond 1e30."""
    return bool((np.abs(value) <= _LARGEST).all())
