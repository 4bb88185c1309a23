"""Published checkpoints of the peers: their key layouts, and what of them a peer does not build."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.network.checkpoint import fit_state, read_state
from mobileinst_deploy.network.kernel_network import KernelNetwork

#: From a published name to this project's; None where a network is not built of it.
Layout = Callable[[str], str | None]

_DETECTRON2 = (
    (re.compile(r"^backbone\.bottom_up\."), "backbone."),
    (re.compile(r"^backbone\.stem\.conv1\.norm\."), "backbone.bn1."),
    (re.compile(r"^backbone\.stem\.conv1\."), "backbone.conv1."),
    (re.compile(r"^(backbone\.res\d\.\d+\.)conv(\d)\.norm\."), r"\1bn\2."),
    (re.compile(r"^(backbone\.res\d\.\d+\.)shortcut\.norm\."), r"\1downsample.1."),
    (re.compile(r"^(backbone\.res\d\.\d+\.)shortcut\."), r"\1downsample.0."),
    (re.compile(r"^backbone\.res(\d)\."), lambda m: f"backbone.layer{int(m[1]) - 1}."),
)
#: Of training, or constants of a configuration.
_NOT_BUILT = ("criterion.", "pixel_mean", "pixel_std", "iteration")


def detectron2(name: str) -> str | None:
    """Names of detectron2's ResNet, and of what stands on it as the authors call it."""
    name = name.removeprefix("module.")
    if name.startswith(_NOT_BUILT):
        return None
    for pattern, replacement in _DETECTRON2:
        name = pattern.sub(replacement, name)
    return name


def load_peer(network: KernelNetwork, path: Path, layout: Layout = detectron2) -> list[str]:
    """Load a published checkpoint into a peer, whole or not at all.

    Args:
        network: Changed only when every one of its tensors is there.
        path: A ``.safetensors``, ``.pth`` or ``.pt`` file.
        layout: How the file names its tensors.

    Returns:
        The names in the file that nothing was built for, in its order.

    Raises:
        CheckpointError: The file cannot be read, or its tensors are those of another network.
    """
    state, left = dict[str, Tensor](), list[str]()
    for name, tensor in read_state(path)[0].items():
        own = layout(name)
        if own is None:
            left.append(name)
        elif own in state:
            raise CheckpointError(
                f"{path} holds {own} under two names", "Save the tensors of one network alone"
            )
        else:
            state[own] = tensor
    network.load_state_dict(
        fit_state(path, state, network.state_dict(), type(network).__name__), strict=True
    )
    return left
