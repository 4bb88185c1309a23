"""Weights on disk: this project's own files, and the published backbones' layouts.

Own checkpoints are ``.safetensors`` files whose metadata holds the model's configuration as JSON
under ``mobileinst.config``. What other training scripts write is read too, whatever it was wrapped
in: see :mod:`mobileinst_deploy.network.weights_file`.

Reading is strict. A tensor that is missing, unknown, of another shape or not finite is an error
that names it, and then nothing is loaded: a backbone that silently stays random costs weeks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save

from mobileinst_deploy.core.config import Backbone, ModelConfig
from mobileinst_deploy.core.documents import Blame, parse_json
from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.places import places
from mobileinst_deploy.network import KernelNetwork, MobileInst
from mobileinst_deploy.network.weights_file import State, read_weights_file
from mobileinst_deploy.network.weights_fit import COUNTER, choose, fit, listed, weights_of

CONFIG_KEY = "mobileinst.config"
_CLASS_HEAD = ("instance_decoder.class_head.weight", "instance_decoder.class_head.bias")

# Parts of published files that MobileInst does not build, and heads whatever they are called.
_HEADS = ("decode_head.", "auxiliary_head.", "classifier.", "head.", "linear.", "fc.")
_OWN_PARTS = ("mask_decoder.", "instance_decoder.", "context_projection.")
_IGNORED: dict[Backbone, tuple[str, ...]] = {
    "topformer-base": ("SIM.", *_HEADS),
    "topformer-small": ("SIM.", *_HEADS),
    "topformer-tiny": ("SIM.", *_HEADS),
    "seaformer-large": _HEADS,
    "seaformer-base": _HEADS,
    "seaformer-small": _HEADS,
    "seaformer-tiny": _HEADS,
    "resnet-50": _HEADS,
    "resnet-18": _HEADS,
    "mobilenetv2": ("features.18.", *_HEADS),
}


class Loaded(NamedTuple):
    """How a file's weights came into a model.

    Attributes:
        anew: Names of the tensors that were left as they were, for want of the same classes.
        note: Which of several whole networks in the file was taken; None where there was no choice.
    """

    anew: tuple[str, ...]
    note: str | None


class Published(NamedTuple):
    """How a published file's weights came into a network.

    Attributes:
        left: Names in the file that the network is not built of, in the file's order.
        choice: As the note in :class:`Loaded`.
    """

    left: tuple[str, ...]
    choice: str | None

    @property
    def note(self) -> str | None:
        """What people should know; None where there is nothing."""
        aside = listed("left aside", list(self.left)) if self.left else None
        return "; ".join(filter(None, (self.choice, aside))) or None


def save_checkpoint(
    path: Path, model: MobileInst, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model's weights and configuration; the same contents give the same bytes.

    Args:
        path: A ``.safetensors`` file; it is replaced whole or left as it was.
        model: The model.
        metadata: Further entries for the file's metadata.

    Raises:
        CheckpointError: ``path`` has another suffix.
        OutputError: It cannot be written.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path.name} does not end in .safetensors, the only format written here",
            "Give the file that suffix",
        )
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith(COUNTER)
    }
    config = json.dumps(model.config.to_dict(), sort_keys=True)
    data = _with_sorted_metadata(save(state, {**(metadata or {}), CONFIG_KEY: config}))
    write_atomically(path, lambda temporary: _write(temporary, data))


@places(0)
def load_checkpoint(path: Path) -> tuple[ModelConfig, State]:
    """Read an own checkpoint: the configuration and a state that fits it exactly.

    Raises:
        CheckpointError: The file cannot be read, carries no configuration, or its tensors do not
            fit that configuration.
    """
    file = read_weights_file(path)
    config = _config_in(path, file.metadata)
    if config is None:
        raise CheckpointError(
            f"{path} carries no model configuration",
            "Name the model by its zoo id and give this file as its weights",
        )
    with torch.device("meta"):
        expected = MobileInst(config).state_dict()
    state = choose(file, weights_of(expected)).state
    return config, fit(path, state, expected, "the configuration it carries")


@places(1)
def load_weights(model: MobileInst, path: Path, *, other_classes: bool = False) -> Loaded:
    """Load a whole network's weights into a model.

    Args:
        model: Changed only when everything fits.
        path: An own ``.safetensors``, or a ``.pth`` with a state dict in this project's names.
        other_classes: Also take weights of a model with other classes, and then leave the class
            head as it is: how training for YouTube-VIS starts from COCO weights (section 4.2).

    Returns:
        What was left as it was, and what was taken where there was a choice.

    Raises:
        CheckpointError: The file cannot be read, does not fit, or says that it was trained as a
            model that differs in something the tensors' shapes do not show.
    """
    file = read_weights_file(path)
    config = _config_in(path, file.metadata)
    if config is not None:
        _require_same_model(path, config, model.config, other_classes)
    expected = model.state_dict()
    choice = choose(file, weights_of(expected))
    state = choice.state
    own_head = {}
    if other_classes and not _same_classes(state, config, model):
        own_head = {name: expected.pop(name) for name in _CLASS_HEAD}
        state = {name: tensor for name, tensor in state.items() if name not in _CLASS_HEAD}
    model.load_state_dict(fit(path, state, expected, "this model") | own_head)
    return Loaded(tuple(own_head), choice.note)


@places(1)
def load_backbone(model: MobileInst, path: Path) -> None:
    """Load published backbone weights into a model's backbone.

    Understood are TopFormer's and SeaFormer's classification and segmentation checkpoints,
    MobileNetV2 in torchvision's layout or timm's, and whole checkpoints of this project. Wrappers
    (``state_dict_ema``, ``state_dict``, ``model``) and prefixes (``module.``, ``backbone.``) are
    taken off; heads, TopFormer's semantic injection and MobileNetV2's last convolution are left.

    MobileNetV2 weights converted from TensorFlow were trained with padding on the right and bottom
    only at stride 2, and on RGB / 127.5 - 1. This network pads both sides evenly and normalises by
    its configuration. Such weights lose some accuracy that way and serve to start a training from.

    Args:
        model: Its backbone is changed, and only when everything fits.
        path: The file.

    Raises:
        CheckpointError: The file cannot be read, or is not of the model's backbone.
    """
    name = model.config.backbone
    wanted = weights_of(model.backbone.state_dict())
    file = read_weights_file(path)
    states = {
        place: {model.backbone.own_name(key): tensor for key, tensor in state.items()}
        for place, state in file.states.items()
    }
    kept = {}
    for key, tensor in choose(replace(file, states=states), wanted).state.items():
        key = key.removeprefix("module.").removeprefix("backbone.")
        if not key.startswith((*_IGNORED[name], *_OWN_PARTS)):
            kept[key] = tensor
    model.backbone.load_state_dict(fit(path, kept, model.backbone.state_dict(), name))


@places(1)
def load_published(network: KernelNetwork, path: Path) -> Published:
    """Load a checkpoint by the names that a network's :meth:`~KernelNetwork.own_name` translates.

    Args:
        network: Changed only when every one of its tensors is there.
        path: A ``.safetensors``, ``.pth`` or ``.pt`` file.

    Raises:
        CheckpointError: The file cannot be read, or its tensors are those of another network.
    """
    file = read_weights_file(path)
    states = dict[str, State]()
    left = dict[str, tuple[str, ...]]()
    for place, state in file.states.items():
        names = {name: network.own_name(name.removeprefix("module.")) for name in state}
        known = {name: own for name, own in names.items() if own is not None}
        if len(set(known.values())) < len(known):
            twice = next(own for own in known.values() if [*known.values()].count(own) > 1)
            raise CheckpointError(
                f"{path} holds {twice} under two names", "Save the tensors of one network alone"
            )
        states[place] = {own: state[name] for name, own in known.items()}
        left[place] = tuple(name for name in names if name not in known)
    expected = network.state_dict()
    choice = choose(replace(file, states=states), weights_of(expected))
    what = type(network).__name__
    network.load_state_dict(fit(path, choice.state, expected, what))
    return Published(next((names for names in left.values() if names), ()), choice.note)


def _config_in(path: Path, metadata: Mapping[str, str]) -> ModelConfig | None:
    if CONFIG_KEY not in metadata:
        return None
    blame = Blame(
        f"{path} carries a configuration that cannot be used",
        CheckpointError,
        "Take a checkpoint written by this version",
    )
    return parse_json(metadata[CONFIG_KEY].encode(errors="replace"), ModelConfig, blame)


def _require_same_model(
    path: Path, there: ModelConfig, here: ModelConfig, other_classes: bool
) -> None:
    """Refuse weights that fit by shape and yet mean something else, such as other classes."""
    free = {"input_size", "reuse_context"} | ({"classes"} if other_classes else set())
    ours, theirs = here.to_dict(), there.to_dict()
    differing = [key for key in ours if ours[key] != theirs[key] and key not in free]
    if differing:
        key = differing[0]
        values = "" if key == "classes" else f" ({key} is {theirs[key]} there and {ours[key]} here)"
        raise CheckpointError(
            f"{path} was trained as a model with another {' and '.join(differing)}{values}",
            "Use the model that it was trained as",
        )


def _same_classes(state: State, config: ModelConfig | None, model: MobileInst) -> bool:
    """Whether a file's class head speaks of the model's classes; by shape where it does not say."""
    if config is not None:
        return config.classes == model.config.classes
    head = state.get(_CLASS_HEAD[0])
    return head is not None and head.shape[:1] == (model.config.num_classes,)


def _with_sorted_metadata(data: bytes) -> bytes:
    """Put a safetensors file's metadata in order, which its writer leaves to chance.

    The format is an 8-byte little-endian header length, the JSON header padded with spaces to a
    multiple of 8 bytes, and the tensors at offsets counted from the header's end.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
