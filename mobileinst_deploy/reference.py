"""PyTorch's own outputs on pictures: what every exported graph is held to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mobileinst_deploy.golden import Golden
from mobileinst_deploy.modeling import MobileInst
from mobileinst_deploy.specs import graph_specs


def make_golden(model: MobileInst, images: np.ndarray, keyframe: np.ndarray) -> Golden:
    """Run PyTorch on pictures: the reference that exported graphs are held to.

    Args:
        model: In eval mode.
        images: (P, 3, H, W) uint8, RGB.
        keyframe: (P,) int64; each picture's keyframe comes no later than itself.
    """
    frames: list[dict[str, np.ndarray]] = []
    reuse: list[np.ndarray] = []
    kernels: list[Tensor] = []
    names = [t.name for t in graph_specs(model.config)["frame"].outputs]
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
