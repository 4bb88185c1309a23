"""The reference that travels with an exported pair: pictures and PyTorch's outputs on them.

``golden.npz``, uncompressed: ``images``, ``keyframe``, ``frame/<output>`` and
``mask_head/mask_logits``, each as :class:`Golden` says.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import (
    IMAGE,
    KERNELS,
    MASK_LOGITS,
    Role,
    graph_specs,
    is_carried,
)
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.needs import Description
from mobileinst_deploy.core.places import places

_EXPORT_AGAIN = "Export the model again with `mobileinst export`"


@dataclass(frozen=True)
class Golden:
    """The reference made by PyTorch at export; ``verify`` needs neither torch nor weights for it.

    Attributes:
        images: (P, 3, H, W) uint8, RGB. Consecutive pictures form clips.
        keyframe: (P,) int64: for each picture the index of the one whose kernels it reuses; a
            picture that names itself is a keyframe, and no picture names a later one.
        frame: The frame graph's outputs per picture, each (P, ...) float32.
        mask_logits: (P, N, H/8, W/8) float32: the mask-head graph on each picture with the kernels
            of its keyframe.
    """

    images: np.ndarray
    keyframe: np.ndarray
    frame: Mapping[str, np.ndarray]
    mask_logits: np.ndarray

    def image(self, index: int) -> np.ndarray:
        """Picture ``index`` as both graphs take it: (1, 3, H, W) float32, RGB, 0 to 255."""
        picture: np.ndarray = self.images[index : index + 1].astype(np.float32)
        return picture

    def kernels(self, index: int) -> np.ndarray:
        """The kernels (1, N, D) that picture ``index`` reuses."""
        return self.carried(index)[KERNELS]

    def carried(self, index: int) -> dict[str, np.ndarray]:
        """What picture ``index`` is given of its keyframe, by name: kernels, and context if any."""
        key = int(self.keyframe[index])
        return {name: self.frame[name][key : key + 1] for name in self.frame if is_carried(name)}

    def inputs(self, role: Role, index: int) -> dict[str, np.ndarray]:
        """What a graph takes for picture ``index``, by name."""
        image = {IMAGE: self.image(index)}
        return image if role == "frame" else image | self.carried(index)

    def outputs(self, role: Role) -> dict[str, np.ndarray]:
        """What PyTorch gives for a graph's inputs, by name, over all pictures (P, ...)."""
        return dict(self.frame) if role == "frame" else {MASK_LOGITS: self.mask_logits}


def save_golden(path: Path, golden: Golden) -> None:
    """Write the golden data; uncompressed, because float noise does not compress."""
    arrays = {
        "images": golden.images,
        "keyframe": golden.keyframe,
        **{f"frame/{name}": value for name, value in golden.frame.items()},
        "mask_head/mask_logits": golden.mask_logits,
    }
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


@places(0)
def read_golden(content: Content, config: Description) -> Golden:
    """Read golden data and check that it fits the model.

    Raises:
        BundleError: It is unreadable, or its arrays do not fit the model.
    """
    path = content.path
    outputs = graph_specs(config)["frame"].outputs
    try:
        with zipfile.ZipFile(io.BytesIO(content.data)) as archive:
            # Stored members cannot unpack to more than the file's own size.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed")
        with np.load(io.BytesIO(content.data), allow_pickle=False) as data:
            images = _array(data, "images")
            keyframe = _array(data, "keyframe")
            frame = {t.name: _array(data, f"frame/{t.name}") for t in outputs}
            mask_logits = _array(data, "mask_head/mask_logits")
    except Exception as error:  # a damaged archive can fail in any way
        raise BundleError(f"{path} is not readable golden data", _EXPORT_AGAIN) from error
    count = len(images) if images.ndim else 0
    want = {t.name: (count, *t.shape[1:]) for t in outputs}
    fits = (
        count > 0
        and images.dtype == np.uint8
        and images.shape == (count, 3, *config.input_size)
        and all(frame[n].dtype == np.float32 and frame[n].shape == s for n, s in want.items())
        and mask_logits.dtype == np.float32
        and mask_logits.shape == want[MASK_LOGITS]
    )
    if not fits:
        raise BundleError(f"{path} does not fit the model's shapes", _EXPORT_AGAIN)
    if not _is_schedule(keyframe, count):
        raise BundleError(f"{path} names keyframes that cannot be", _EXPORT_AGAIN)
    if not all(np.isfinite(a).all() for a in (*frame.values(), mask_logits)):
        raise BundleError(f"{path} holds values that are not finite", _EXPORT_AGAIN)
    return Golden(images, keyframe, frame, mask_logits)


def _array(data: Mapping[str, Any], name: str) -> np.ndarray:
    """A member of the archive; numpy hands out what is not in its form as plain bytes."""
    value = data[name]
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is no array")
    return value


def _is_schedule(keyframe: np.ndarray, count: int) -> bool:
    """Whether every picture reuses the kernels of one that is no later and its own keyframe."""
    if keyframe.dtype != np.int64 or keyframe.shape != (count,):
        return False
    if not bool(np.all((keyframe >= 0) & (keyframe <= np.arange(count)))):
        return False
    return bool(np.all(keyframe[keyframe] == keyframe))
