"""A picture file: what its header says before anything is decoded, and whether it is whole.

A header is a hundred bytes and can promise a gigapixel, so that size is told and bounded first.
Pillow reads it, OpenCV decodes: the two agree on every format that both know, and Pillow knows all
that a phone or a data set holds.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.native_words import stderr_into
from mobileinst_deploy.core.text import shown, size_text

#: The longest side and the most pixels of a picture or a frame: masks are drawn at this size, and
#: every one of them takes a byte per pixel.
MAX_SIDE = 1 << 15
MAX_PIXELS = 1 << 26
MAX_FILE_BYTES = 1 << 28
_ORIENTATION = 0x0112
_QUARTER_TURNS = frozenset({5, 6, 7, 8})
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_END_OF_JPEG = b"\xff\xd9"
_DAMAGE = "Corrupt JPEG data: "
_GIVE = "Give a whole PNG or JPEG file"


@dataclass(frozen=True)
class Header:
    """What a picture says of itself.

    Attributes:
        size: (height, width) in pixels as stored.
        turned: Whether its EXIF orientation shows it with height and width exchanged.
        scan: Where a JPEG's coded pixels begin, or None for another format.
        frames: Pictures of an animation; 1 for any other, also for pages and for a phone's second
            picture of one scene.
    """

    size: tuple[int, int]
    turned: bool
    scan: int | None
    frames: int = 1


def read_bytes(path: Path) -> bytes:
    """A picture file's bytes.

    Raises:
        MediaError: It cannot be read, is a folder, or is larger than :data:`MAX_FILE_BYTES`.
    """
    try:
        # Without blocking: opening a pipe that nobody writes would wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MediaError(f"{path} is no plain file", "Give a picture file")
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or shown(str(error))
        raise MediaError(
            f"{path} cannot be read: {reason}", "Give a picture file such as a PNG or JPEG"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise MediaError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", _GIVE)
    return data


def read_header(data: bytes, path: Path) -> Header:
    """Read a picture's header, and refuse what would not fit.

    Args:
        data: The file's bytes.
        path: For messages.

    Raises:
        MediaError: It is no picture, or has more than :data:`MAX_SIDE` pixels a side or
            :data:`MAX_PIXELS` in all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
                check_size(height, width, str(path))
                turn = picture.getexif().get(_ORIENTATION)
                jpeg = picture.format in ("JPEG", "MPO")
                scan = picture.tile[0].offset if jpeg and picture.tile else None
                animated = picture.format in _ANIMATED and getattr(picture, "is_animated", False)
                frames = getattr(picture, "n_frames", 1) if animated else 1
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(str(path), f"more than {MAX_PIXELS:,} pixels") from None
    except MediaError:
        raise
    except UnidentifiedImageError:
        raise MediaError(f"{path} is not a readable picture", "Give a PNG or JPEG file") from None
    except Exception as error:  # a damaged header can fail in any way
        raise MediaError(
            f"{path} is not a readable picture: {shown(str(error), 200)}", "Give a PNG or JPEG file"
        ) from error
    return Header((height, width), turn in _QUARTER_TURNS, scan, frames)


def check_size(height: int, width: int, where: str) -> None:
    """Refuse a picture or a frame that would not fit.

    Raises:
        MediaError: It has more than :data:`MAX_SIDE` pixels a side or :data:`MAX_PIXELS` in all.
    """
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise _too_large(where, f"{size_text((height, width))} pixels")


def decode(data: bytes, header: Header, path: Path) -> np.ndarray:
    """Decode a picture as (H, W, 3) uint8, BGR; EXIF rotation applied, alpha dropped.

    Raises:
        MediaError: It is damaged or cut short, or OpenCV cannot decode it.
    """
    if header.scan is not None and data.find(_END_OF_JPEG, header.scan) < 0:
        raise MediaError(f"{path} is cut short: its JPEG data has no end", _GIVE)
    said: list[str] = []
    # libjpeg goes on past damage with made-up pixels and tells only the process's own stderr; what
    # the other decoders say there is in this module's sentences.
    with stderr_into(said):
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            picture = None
    if picture is None:
        raise MediaError(f"{path} is not a readable picture", "Give a PNG or JPEG file")
    damage = next((line for line in said if line.startswith(_DAMAGE)), None)
    if damage is not None:
        reason = shown(damage.removeprefix(_DAMAGE), 120)
        raise MediaError(f"{path} is damaged: {reason}", _GIVE)
    return picture


def _too_large(where: str, what: str) -> MediaError:
    return MediaError(
        f"{where} has {what}; the most are {MAX_SIDE:,} a side and {MAX_PIXELS:,} in all",
        "Scale it down",
    )
