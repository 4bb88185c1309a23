"""PyTorch as a runtime: it can be tracked with, and exported graphs are held to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mobileinst_deploy.core.contract import graph_specs
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.network import KernelNetwork


class TorchModel:
    """A :class:`~mobileinst_deploy.core.tracker.FrameModel` over PyTorch.

    Args:
        model: The network; put into eval mode and moved.
        device: Where it runs, by torch's name, such as ``cpu`` or ``cuda``.
    """

    def __init__(self, model: KernelNetwork, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._model = model.eval().to(self._device)
        self._outputs = [tensor.name for tensor in graph_specs(model.needs)["frame"].outputs]

    def frame(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Segment a keyframe: (1,3,H,W) to the frame graph's outputs by tensor name."""
        with torch.inference_mode():
            output = self._model(self._tensor(image))
        return {name: getattr(output, name).float().cpu().numpy() for name in self._outputs}

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        """Segment a reuse frame: (1,3,H,W) and kernels (1,n,D) to mask logits (1,n,H/8,W/8)."""
        with torch.inference_mode():
            logits = self._model.mask_head(self._tensor(image), self._tensor(kernels))
        mask_logits: np.ndarray = logits.float().cpu().numpy()
        return mask_logits

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def make_golden(model: KernelNetwork, images: np.ndarray, keyframe: np.ndarray) -> Golden:
    """Run PyTorch on pictures: the reference that exported graphs are held to.

    Args:
        model: In eval mode.
        images: (P, 3, H, W) uint8, RGB.
        keyframe: (P,) int64; each picture's keyframe comes no later than itself.
    """
    frames: list[dict[str, np.ndarray]] = []
    reuse: list[np.ndarray] = []
    kernels: list[torch.Tensor] = []
    names = [t.name for t in graph_specs(model.needs)["frame"].outputs]
    with torch.inference_mode():
        for index in range(len(images)):
            image = torch.from_numpy(images[index : index + 1]).float()
            features = model.features(image)
            decoded = model.decode(features)
            kernels.append(decoded.kernels)
            outputs = model.outputs(features, decoded)
            frames.append({name: getattr(outputs, name).numpy() for name in names})
            carried = kernels[int(keyframe[index])]
            reuse.append(model.reuse(carried, features.mask_features).numpy())
    return Golden(
        images=images,
        keyframe=keyframe,
        frame={name: np.concatenate([f[name] for f in frames]) for name in names},
        mask_logits=np.concatenate(reuse),
    )
