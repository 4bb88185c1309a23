"""PyTorch as a runtime: it can be tracked with, and exported graphs are held to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mobileinst_deploy.core.contract import IMAGE, MASK_LOGITS, Call, GraphSpec, Role, graph_specs
from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.network import FrameOutput, KernelNetwork


class TorchRunner:
    """PyTorch; a :class:`~mobileinst_deploy.core.contract.GraphRunner`.

    Args:
        model: The network; put into eval mode and moved.
        device: Where it runs, by torch's name, such as ``cpu`` or ``cuda``.
    """

    runtime = f"pytorch {torch.__version__}"
    emulated = False

    def __init__(self, model: KernelNetwork, device: str = "cpu") -> None:
        self.name = device
        self.specs: Mapping[Role, GraphSpec] = graph_specs(model.description)
        self._device = torch.device(device)
        self._model = model.eval().to(self._device)

    def outputs(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        """Run each call in order; see :class:`~mobileinst_deploy.core.contract.GraphRunner`."""
        return [self._run(call) for call in calls]

    def _run(self, call: Call) -> dict[str, np.ndarray]:
        self.specs[call.role].check_inputs(call.inputs)
        given = {n: torch.from_numpy(a).to(self._device) for n, a in call.inputs.items()}
        with torch.inference_mode():
            if call.role == "frame":
                output = self._model(given[IMAGE])
                made = _by_name(self.specs, output)
            else:
                image, kernels, *context = (given[t.name] for t in self.specs["mask_head"].inputs)
                made = {MASK_LOGITS: self._model.mask_head(image, kernels, context)}
        return _finite({name: value.float().cpu().numpy() for name, value in made.items()})


def make_golden(model: KernelNetwork, images: np.ndarray, keyframe: np.ndarray) -> Golden:
    """Run PyTorch on pictures: the reference that exported graphs are held to.

    Args:
        model: In eval mode.
        images: (P, 3, H, W) uint8, RGB.
        keyframe: (P,) int64; each picture's keyframe comes no later than itself.
    """
    specs = graph_specs(model.description)
    frames: list[dict[str, np.ndarray]] = []
    reuse: list[np.ndarray] = []
    keyframes: list[FrameOutput] = []
    with torch.inference_mode():
        for index, key in enumerate(keyframe.tolist()):
            image = torch.from_numpy(images[index : index + 1]).float()
            keyframes.append(model(image))
            named = _by_name(specs, keyframes[-1])
            frames.append(_finite({name: value.numpy() for name, value in named.items()}))
            given = keyframes[key]
            reuse.append(model.mask_head(image, given.kernels, given.context).numpy())
    return Golden(
        images=images,
        keyframe=keyframe,
        frame={t.name: np.concatenate([f[t.name] for f in frames]) for t in specs["frame"].outputs},
        mask_logits=np.concatenate(reuse),
    )


def _finite(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A network's outputs, told apart from the garbage that a network of bad weights gives.

    Raises:
        CheckpointError: An output holds a value that is no finite number.
    """
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise CheckpointError(
                f"with these weights PyTorch itself gives {name} that are not finite numbers",
                "Take an earlier checkpoint of that training, or other weights of the file",
            )
    return outputs


def _by_name(specs: Mapping[Role, GraphSpec], output: FrameOutput) -> dict[str, torch.Tensor]:
    values = (*output[:-1], *output.context)
    return {t.name: value for t, value in zip(specs["frame"].outputs, values, strict=True)}
