"""Weights files as they are found: every state dict in one, whatever it was wrapped in.

``.safetensors`` files hold tensors and nothing else. The others are pickles, which can run code:
they are read by torch's restricted unpickler, which knows tensors and plain containers, and here
also what training scripts keep beside them (argparse's Namespace, paths, numpy scalars), in forms
that do nothing but hold their values.
"""

from __future__ import annotations

import argparse
import pickle
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.network.file_kinds import other_kind
from mobileinst_deploy.network.pickle_bounds import require_bounded

State = dict[str, Tensor]

#: What weights files are called; the last are torch's own format under other names.
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
MAX_BYTES = 4 << 30
_NESTING = 3
_PICKLE_MAGICS = (b"PK\x03\x04", b"\x80")  # a zip archive, or a bare pickle of protocol 2 and up
_UNKNOWN_GLOBAL = re.compile(r"(?:GLOBAL|class|type) ([\w.]+)")
_NUMBER = re.compile(r"[<>|=]?([biuf])([1248])")


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        path: The file.
        states: Every state dict in it by where it lies, such as ``model`` or ``ckpt.ema``; the
            empty name is the file itself.
        metadata: A safetensors file's own entries.
    """

    path: Path
    states: Mapping[str, State]
    metadata: Mapping[str, str] = field(default_factory=dict)


def is_weights_file(path: Path) -> bool:
    """Whether a path is called what weights files are."""
    return path.name.endswith(SUFFIXES)


@places(0)
def read_weights_file(path: Path) -> WeightsFile:
    """Read a weights file without executing anything in it.

    Raises:
        CheckpointError: It cannot be read, wants to execute something, or holds no state dict.
    """
    _require_file(path)
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
        return WeightsFile(path, {"": state}, metadata)
    if is_weights_file(path):
        states = _states(path, read_pickle(path))
        for name, tensor in (item for state in states.values() for item in state.items()):
            if kind := unusual(tensor):
                raise CheckpointError(
                    f"{path} holds {shown(name, 120)} as {kind}", "Save it as a plain tensor"
                )
        return WeightsFile(path, states)
    if path.name.endswith(".index.json"):
        raise CheckpointError(
            f"{path} is the list of a weights file's parts",
            "Load the parts that it names, write all of their tensors into one file with "
            "safetensors.torch.save_file, and give that file",
        )
    raise CheckpointError(
        f"{path} is no weights file by its name", f"Give a file that ends in {', '.join(SUFFIXES)}"
    )


@places(0)
def read_pickle(path: Path) -> Any:
    """What torch saved in a file: tensors, plain containers and numbers.

    Raises:
        CheckpointError: It is damaged, or asks for more than that.
    """
    try:
        _require_kind(path)
        with path.open("rb") as file:
            if not file.read(4).startswith(_PICKLE_MAGICS):
                raise ValueError("it is no pickle")
        require_bounded(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE):
            warnings.simplefilter("ignore")  # what torch warns of ends as an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _UNKNOWN_GLOBAL.search(str(error))
        asks = f"asks for {shown(found[1], 80)}" if found else "asks for more"
        raise CheckpointError(
            f"{path} is a pickle that {asks}, beyond tensors and plain containers, and is "
            "refused because loading it could run code",
            "Where you trust it, load it with torch.load, save only its tensors with "
            "safetensors.torch.save_file, and give that file",
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise _unreadable(path, first_line(error)) from error


def unusual(tensor: Tensor) -> str | None:
    """What kind of tensor it is that has no values lying in memory; None for a plain one."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_meta:
        return "a tensor without values"
    if tensor.is_quantized:
        return "a quantised tensor"
    return None if tensor.layout == torch.strided else "a sparse tensor"


def first_line(error: Exception) -> str:
    """The beginning of what an exception says."""
    lines = str(error).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__, 200).rstrip(".")


class _Dtype:
    """Stands for numpy's dtype of a scalar: its name, and nothing that a file could tell it."""

    def __init__(self, name: str, *_: object) -> None:
        found = _NUMBER.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            raise pickle.UnpicklingError("GLOBAL numpy.dtype of no number")
        self.name = found[1] + found[2]

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which do not matter for what is not read."""


def _scalar(dtype: object, data: object) -> float:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("GLOBAL numpy.dtype of no number")
    raw = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(raw, bytes) or len(raw) != np.dtype(dtype.name).itemsize:
        raise pickle.UnpicklingError("GLOBAL numpy.scalar of no number")
    return float(np.frombuffer(raw, dtype.name)[0])


def _path(*parts: object) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise pickle.UnpicklingError("GLOBAL pathlib.PosixPath of no text")
    return "/".join(map(str, parts))


_SAFE: list[Any] = [
    argparse.Namespace,
    (_Dtype, "numpy.dtype"),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(
        (_path, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath")
    ),
]


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a weights file", "Give the file inside it")
    if not path.exists():
        raise CheckpointError(f"there is no weights file {path}", "Check the path")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path} is a pipe or a device, not a file", "Give a file")
        size = status.st_size
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}", "Check its permissions"
        ) from error
    if size == 0:
        raise CheckpointError(f"{path} is empty", "Download or copy it again")
    if size > MAX_BYTES:
        raise CheckpointError(
            f"{path} has {size:,} bytes, and {MAX_BYTES:,} are the most",
            "Save the network's tensors alone",
        )


def _require_kind(path: Path) -> None:
    if other := other_kind(path):
        raise CheckpointError(f"{path} is {other.name}, not a weights file", other.next_step)


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        _require_kind(path)
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: {first_line(error)}",
            "Download or copy it again",
        ) from error


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a complete PyTorch file: {reason}", "Download or copy it again"
    )


def _states(path: Path, document: Any) -> dict[str, State]:
    """Every mapping of names to tensors, however a framework wrapped it."""
    if not isinstance(document, Mapping) or not document:
        raise CheckpointError(f"{path} holds no state dict", "Give a file of named tensors")
    found = dict(_walk(document, (), _NESTING))
    if found:
        return found
    deepest = next((v for v in document.values() if isinstance(v, Mapping) and v), document)
    name, value = next(iter(deepest.items()))
    raise CheckpointError(
        f"{path} holds {shown(str(name), 60)!r}, a {type(value).__name__}, among its tensors",
        "Give a file of named tensors",
    )


def _walk(
    document: Mapping[Any, Any], place: tuple[str, ...], depth: int
) -> Iterator[tuple[str, State]]:
    if document and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in document.items()):
        yield ".".join(place), dict(document)
        return
    for name, value in document.items():
        if depth and isinstance(name, str) and isinstance(value, Mapping):
            yield from _walk(value, (*place, name), depth - 1)
