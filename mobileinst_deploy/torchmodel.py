"""The network itself in the place of its two graphs, so that PyTorch can be tracked with, too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mobileinst_deploy.modeling import MobileInst
from mobileinst_deploy.specs import graph_specs


class TorchModel:
    """A :class:`~mobileinst_deploy.track.FrameModel` over PyTorch.

    Args:
        model: The network; put into eval mode and moved.
        device: Where it runs, by torch's name, such as ``cpu`` or ``cuda``.
    """

    def __init__(self, model: MobileInst, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._model = model.eval().to(self._device)
        self._outputs = [tensor.name for tensor in graph_specs(model.config)["frame"].outputs]

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
