"""An ncnn network on disk, ``NAME.param`` and ``NAME.bin``: read, checked, its blobs renamed.

The text names layers in the order in which the other file holds their weights, so that walking the
one must end where the other does; and every weight is flagged with its format, so that fp32 that
was quietly stored as fp16 is seen here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobileinst_deploy.core.content import Content, read_content
from mobileinst_deploy.core.errors import BundleError

_MAGIC = "7767517"
_CONVERT_AGAIN = "Remove it and run this again, so that it is converted anew"
_MAX_PARAM_BYTES = 16 << 20
_FP32 = 0
_FLAGS = {0x01306B47: "fp16", 0x000D4B38: "int8"}


@dataclass(frozen=True)
class Layer:
    """One line of a ``.param`` file.

    Attributes:
        kind: Such as ``Convolution``.
        name: Its own name.
        inputs: Blobs that it takes.
        outputs: Blobs that it gives.
        values: Its parameters by number, as text.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[int, str]

    def whole(self, key: int, default: int = 0) -> int:
        """A parameter as a whole number."""
        return int(self.values.get(key, default))


def read_param(file: Content) -> tuple[Layer, ...]:
    """Read a ``.param`` file.

    Raises:
        BundleError: It is not one, or is cut off.
    """
    try:
        if file.bytes > _MAX_PARAM_BYTES:
            raise ValueError("it is too large")
        lines = file.data.decode().splitlines()
        if not lines or lines[0].strip() != _MAGIC:
            raise ValueError(f"it does not begin with {_MAGIC}")
        count = int(lines[1].split()[0])
        layers = tuple(_layer(line) for line in lines[2:] if line.strip())
        if len(layers) != count:
            raise ValueError(f"it has {len(layers)} layers and says {count}")
    except (ValueError, IndexError) as error:
        raise BundleError(f"{file.path} is no ncnn network: {error}", _CONVERT_AGAIN) from None
    return layers


def rename_blobs(path: Path, names: Mapping[str, str]) -> None:
    """Give blobs other names, in place.

    Raises:
        BundleError: The file is no network, or has no blob of an old name.
    """
    network = read_param(read_content(path))
    known = {blob for layer in network for blob in (*layer.inputs, *layer.outputs)}
    if absent := sorted(set(names) - known):
        raise BundleError(
            f"{path} has no blob {', '.join(absent)}",
            "Export the model again so that its manifest and its graphs belong together",
        )
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines[2:], start=2):
        words = re.split(r"(\s+)", line)  # words at even places, the spaces between at odd ones
        blobs = int(words[4]) + int(words[6])
        for place in range(8, 8 + 2 * blobs, 2):
            words[place] = names.get(words[place], words[place])
        lines[number] = "".join(words)
    path.write_text("\n".join(lines) + "\n")


def check_weights(layers: tuple[Layer, ...], file: Content) -> None:
    """Hold a ``.bin`` file against its layers: every weight there, in fp32, and nothing else.

    Args:
        layers: From :func:`read_param`.
        file: The weights.

    Raises:
        BundleError: It is cut off, of another network, or not fp32.
    """
    try:
        at = 0
        for layer in layers:
            for flagged, elements in weights_of(layer):
                flag = struct.unpack_from("<I", file.data, at)[0] if flagged else _FP32
                if flag != _FP32:
                    raise ValueError(
                        f"the weights of {layer.name} are {_FLAGS.get(flag, 'no')} and not fp32"
                    )
                at += 4 * (elements + flagged)
    except (ValueError, OverflowError, struct.error) as error:
        raise BundleError(
            f"{file.path} is not what ncnn shall run: {error}", _CONVERT_AGAIN
        ) from None
    if at != file.bytes:
        raise BundleError(
            f"{file.path} has {file.bytes} bytes and its network asks for {at}: it is damaged, of"
            " another network, or not fp32",
            _CONVERT_AGAIN,
        )


def _layer(line: str) -> Layer:
    words = line.split()
    inputs, outputs = int(words[2]), int(words[3])
    blobs, rest = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
    if inputs < 0 or outputs < 0 or len(blobs) != inputs + outputs:
        raise ValueError(f"the line of {words[1]} is cut off")
    pairs = (word.partition("=") for word in rest)
    values = {int(key): value for key, _, value in pairs}
    return Layer(words[0], words[1], tuple(blobs[:inputs]), tuple(blobs[inputs:]), values)


def weights_of(layer: Layer) -> list[tuple[bool, int]]:
    """What a layer loads, in order: whether a format flag comes before it, and its elements.

    Raises:
        ValueError: It adds a constant of a shape that ncnn does not know.
    """
    if layer.kind in ("Convolution", "ConvolutionDepthWise"):
        bias = [(False, layer.whole(0))] if layer.whole(5) else []
        return [(True, layer.whole(6)), *bias]
    if layer.kind == "Gemm":
        m, n, k = layer.whole(7), layer.whole(8), layer.whole(9)
        added = {-1: 0, 0: 1, 1: m, 2: m, 3: m * n, 4: n}.get(layer.whole(10))
        if added is None:
            raise ValueError(f"{layer.name} adds a constant of an unknown shape")
        constants = ((4, m * k), (5, n * k), (6, added))
        return [(True, elements) for key, elements in constants if layer.whole(key) and elements]
    if layer.kind == "LayerNorm":
        return [(False, layer.whole(0))] * 2 if layer.whole(2, 1) else []
    if layer.kind == "MemoryData":
        elements = 1
        for key in (0, 1, 11, 2):
            elements *= layer.whole(key) or 1
        return [(not layer.whole(21, 1), elements)]
    return []
