"""Real pictures for references: the user's own, or photographs that ship inside scikit-image."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.media.letterbox import prepare
from mobileinst_deploy.media.picture_file import decode, read_bytes, read_header

#: Photographs of scikit-image's package data, and the pans over each in 1/64 of the crop's width.
#: A pan is a clip with real texture: its first picture is the keyframe, the rest reuse its kernels.
_PHOTOGRAPHS = (("astronaut.png", (0, 1, 2)), ("coffee.png", (0,)))


@places(0)
def read_picture(path: Path) -> np.ndarray:
    """Read a picture file as (H, W, 3) uint8, RGB; EXIF rotation applied, alpha dropped.

    Raises:
        MediaError: It is missing, a folder, damaged, too large, an animation, or no picture at all.
    """
    data = read_bytes(path)
    header = read_header(data, path)
    if header.frames > 1:
        raise MediaError(
            f"{path} holds {header.frames} pictures, and one is wanted",
            "Give one of them, or the animation itself as the clip of `mobileinst run`",
        )
    return cv2.cvtColor(decode(data, header, path), cv2.COLOR_BGR2RGB)


def is_turned(path: Path) -> bool:
    """Whether a picture's EXIF orientation exchanges its height and width when it is shown.

    Raises:
        MediaError: Its header cannot be read.
    """
    return read_header(read_bytes(path), path).turned


def bundled_photographs() -> list[Path]:
    """The photographs that :func:`reference_clips` uses, as files.

    Raises:
        MediaError: scikit-image's data is missing from this installation.
    """
    # Found without importing scikit-image, which would take longer than reading the pictures.
    spec = importlib.util.find_spec("skimage")
    folder = Path(spec.origin).parent / "data" if spec is not None and spec.origin else None
    paths = [folder / name for name, _ in _PHOTOGRAPHS] if folder is not None else []
    if not paths or not all(path.is_file() for path in paths):
        raise MediaError(
            "scikit-image's photographs are missing", "Install scikit-image, or give --image"
        )
    return paths


def reference_clips(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Crops that pan over bundled photographs.

    Args:
        size: (height, width) of each picture.

    Returns:
        images (P, 3, H, W) uint8 RGB, and keyframe (P,) int64 as in
        :class:`~mobileinst_deploy.core.golden.Golden`.
    """
    images: list[np.ndarray] = []
    keyframe: list[int] = []
    for path, (_, pans) in zip(bundled_photographs(), _PHOTOGRAPHS, strict=True):
        photograph = read_picture(path)
        first = len(images)
        for pan in pans:
            images.append(_crop(photograph, size, pan))
            keyframe.append(first)
    return np.stack(images), np.array(keyframe, np.int64)


def user_clip(paths: Sequence[Path], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The user's pictures as one clip: the first is the keyframe, the others reuse its kernels.

    Args:
        paths: Picture files, in order.
        size: (height, width) that each is fitted into, as in deployment.

    Returns:
        As :func:`reference_clips`.

    Raises:
        MediaError: One of them cannot be read.
    """
    images = [prepare(read_picture(path), size)[0] for path in paths]
    return np.concatenate(images).astype(np.uint8), np.zeros(len(images), np.int64)


def _crop(photograph: np.ndarray, size: tuple[int, int], pan: int) -> np.ndarray:
    """The largest crop of the aspect of ``size``, shrunk by 1/16 to have room, panned, resized."""
    height, width = photograph.shape[:2]
    scale = min(height / size[0], width / size[1]) * 15 / 16
    h, w = int(size[0] * scale), int(size[1] * scale)
    # A narrow crop pans by a pixel at least, or its pictures would be one and the same.
    left = min(max(pan * w // 64, pan), width - w)
    crop = photograph[(height - h) // 2 : (height - h) // 2 + h, left : left + w]
    resized = cv2.resize(crop, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))
