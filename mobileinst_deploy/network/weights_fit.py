"""A network's weights out of a file: chosen among what it holds, and fitted without a gap."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.network.weights_file import State, WeightsFile

#: How the counters of BatchNorm end: they are state, and no weights.
COUNTER = "num_batches_tracked"
_SHOWN = 5
# torch's AveragedModel counts what it has averaged; timm, YOLO and DETR call the average ema.
_AVERAGED_COUNT = "n_averaged"
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged?)(?:$|[._])")
_LOOKS_LIKE = {
    "tpm.": "TopFormer",
    "smb1.": "SeaFormer",
    "features.": "MobileNetV2",
    "layer1.0.": "ResNet",
    "blocks.": "another network of timm's",
}


def weights_of(expected: Mapping[str, Tensor]) -> set[str]:
    """The names that a file must have."""
    return {name for name in expected if not name.endswith(COUNTER)}


def fit(
    path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str
) -> State:
    """A complete float32 state for ``expected``, made of ``state``.

    Args:
        path: For messages.
        state: As read; BatchNorm's counters are left out of account.
        expected: Tensors of the wanted names and shapes.
        what: What ``expected`` belongs to, for messages.

    Raises:
        CheckpointError: Names or shapes differ, or a tensor cannot be taken as float32.
    """
    given = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}
    wanted = {name: tensor for name, tensor in expected.items() if not name.endswith(COUNTER)}
    misshapen = [
        f"{name} is {_shape(given[name])}, not {_shape(tensor)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    findings = [
        listed(noun, names)
        for noun, names in (
            ("missing", [name for name in wanted if name not in given]),
            ("unknown", [name for name in given if name not in wanted]),
            ("of another shape", misshapen),
        )
        if names
    ]
    if findings:
        likeness = next(
            (n for p, n in _LOOKS_LIKE.items() if any(k.startswith(p) for k in given)), ""
        )
        raise CheckpointError(
            f"{path} does not fit {what}; tensors {'; '.join(findings)}",
            f"Give weights of {what}" + (f"; these look like {likeness}'s" if likeness else ""),
        )
    counters = {n: torch.zeros((), dtype=t.dtype) for n, t in expected.items() if n not in wanted}
    return {name: _as_float32(path, name, given[name]) for name in wanted} | counters


def _as_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    """A tensor's values as float32, all of them finite."""
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{path} holds {name} as {str(tensor.dtype).removeprefix('torch.')}, not as floating "
            "point numbers",
            "Give the weights as they were before quantisation",
        )
    value = tensor.to(torch.float32).contiguous()
    if not bool(torch.isfinite(value).all()):
        raise CheckpointError(
            f"{path} holds values in {name} that are no finite float32 numbers",
            "Take an earlier checkpoint of that training",
        )
    return value


@dataclass(frozen=True)
class Choice:
    """A state dict for a network, out of those that a file holds.

    Attributes:
        state: Its tensors, without a common prefix.
        name: Where in the file it lies.
        others: Where others lie that would have fitted.
    """

    state: State
    name: str
    others: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """What people should know; None where there was no choice."""
        if not self.others:
            return None
        return (
            f"taken are the weights under {self.name!r}, not those under {', '.join(self.others)}"
        )


def choose(file: WeightsFile, wanted: Collection[str]) -> Choice:
    """The state dict that a network's own run would use.

    That is the one that has every wanted name, under a prefix that they share (``module.``,
    ``_orig_mod.``, Lightning's ``model.``); of several, the averaged one, as whoever keeps an
    average evaluates with it. Where none has all, the one that has most, for the message.
    """
    options: list[tuple[int, str, State]] = []
    for place, state in file.states.items():
        given = {n: t for n, t in state.items() if n != _AVERAGED_COUNT}
        for prefix in _prefixes(given, wanted):
            inside = {n.removeprefix(prefix): t for n, t in given.items() if n.startswith(prefix)}
            outside = {n: t for n, t in given.items() if not n.startswith(prefix)}
            found = len(wanted & inside.keys())
            name = ".".join(filter(None, (place, prefix.rstrip("."))))
            # What lies beside a whole network is of something else, such as a criterion.
            options.append((found, name, inside if found == len(wanted) else inside | outside))
    whole = [option for option in options if option[0] == len(wanted)]
    if not whole:
        most, name, state = max(options, key=lambda option: option[0])
        return Choice(state if most else dict(next(iter(file.states.values()))), name)
    averaged = [option for option in whole if _AVERAGED.search(option[1])]
    _, name, state = (averaged or whole)[0]
    return Choice(state, name, tuple(repr(other) for _, other, _ in whole if other != name))


def _prefixes(state: Mapping[str, Tensor], wanted: Collection[str]) -> list[str]:
    """What may come before the wanted names, shortest first."""
    names = sorted(wanted)
    probes = {names[0], names[len(names) // 2], names[-1]}
    found = {name.removesuffix(probe) for name in state for probe in probes if name.endswith(probe)}
    return sorted({p for p in found if not p or p.endswith(".")} | {""}, key=len)


def listed(noun: str, names: list[str]) -> str:
    """A few of some names after what they are: ``missing: a, b and 3 more``."""
    shown = ", ".join(name[:120] for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{noun}: {shown}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
