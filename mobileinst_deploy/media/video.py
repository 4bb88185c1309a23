"""Clips coming in: video files, folders of pictures, single pictures, a camera.

Everything streams: one picture is in memory at a time, however long the clip.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.text import whole
from mobileinst_deploy.media.animation import Animation
from mobileinst_deploy.media.clip import FOLDER_RATE, Clip, Picture, same_size
from mobileinst_deploy.media.picture_file import read_bytes, read_header
from mobileinst_deploy.media.pictures import read_picture
from mobileinst_deploy.media.video_file import VideoFile

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
_PATTERN = re.compile(r"%0?\d*d|[*?]")


@places(0)
def open_clip(source: str, rate: Fraction | None = None) -> Clip:
    """A clip by what names it on the command line.

    Args:
        source: A video file, a picture, an animated one, a folder of pictures, or the number of a
            camera.
        rate: Frames per second of a folder of pictures or a raw stream, which say nothing of it;
            default: 25 for a folder.

    Raises:
        MediaError: There is nothing of that name, or nothing in it; or it is a raw stream and
            ``rate`` is missing, or says its own rate and ``rate`` is given.
    """
    path = Path(source)
    if path.is_dir():
        return PictureFolder(path, rate or FOLDER_RATE)
    if not path.exists():
        camera = whole(source, 0, 999)
        if camera is not None:
            return Camera(camera)
        if "://" in source:
            raise MediaError(
                f"{source} is a URL, and only files are opened", "Download it and give the file"
            )
        if _PATTERN.search(source):
            raise MediaError(
                f"there is no file {source}, and names are not taken for patterns",
                "Give the folder of the pictures; they are taken in natural order",
            )
    if path.suffix.lower() in PICTURE_SUFFIXES:
        animated = path.is_file() and read_header(read_bytes(path), path).frames > 1
        return Animation(path) if animated else SinglePicture(path)
    return VideoFile(path, rate)


class PictureFolder:
    """A folder of pictures in natural order (``frame_2`` before ``frame_10``); see :class:`Clip`.

    Args:
        folder: Holds them; other files in it do not matter.
        rate: Frames per second.

    Raises:
        MediaError: It holds no picture or cannot be read.
    """

    still = False
    audio: Path | None = None
    start = Fraction(0)

    def __init__(self, folder: Path, rate: Fraction = FOLDER_RATE) -> None:
        self.name = folder.absolute().name
        self.rate, self.time_base = rate, 1 / rate
        try:
            files = [
                p
                for p in folder.iterdir()
                if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")
            ]
        except OSError as error:
            raise MediaError(
                f"{folder} cannot be read: {error.strerror}", "Give a folder that you may read"
            ) from error
        if not files:
            raise MediaError(
                f"{folder} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))})",
                "Give a folder with the frames of a clip",
            )
        self._files = sorted(files, key=_natural)
        self.expected: int | None = len(files)

    def __iter__(self) -> Iterator[Picture]:
        """See :class:`Clip`."""
        return _read_pictures(self._files)


class SinglePicture:
    """One picture as a clip of one frame; see :class:`Clip`.

    Args:
        path: The picture.
    """

    still = True
    audio: Path | None = None
    start = Fraction(0)
    rate = FOLDER_RATE
    time_base = 1 / FOLDER_RATE

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self.expected: int | None = 1

    def __iter__(self) -> Iterator[Picture]:
        """See :class:`Clip`."""
        return _read_pictures([self._path])


class Camera:
    """A live camera, until it is interrupted; see :class:`Clip`. Untried: needs a camera.

    Args:
        index: The system's number of the camera.
    """

    still = False
    audio: Path | None = None
    expected: int | None = None
    start = Fraction(0)
    time_base = Fraction(1, 1000)

    def __init__(self, index: int) -> None:
        self.name = f"camera {index}"
        self.rate = FOLDER_RATE
        self._index = index

    def __iter__(self) -> Iterator[Picture]:
        """See :class:`Clip`."""
        # Our own sentence is enough.
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        capture = cv2.VideoCapture(self._index)
        cv2.utils.logging.setLogLevel(level)
        try:
            if not capture.isOpened():
                raise MediaError(
                    f"{self.name} cannot be opened", "Give a video file, or another camera's number"
                )
            started, last = time.monotonic(), -1
            while True:
                got, bgr = capture.read()
                if not got:
                    raise MediaError(f"{self.name} stopped", "Connect it again")
                last = max(last + 1, round((time.monotonic() - started) * 1000))
                yield Picture(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), last)
        finally:
            capture.release()


def _read_pictures(files: Sequence[Path]) -> Iterator[Picture]:
    size: tuple[int, int] | None = None
    for index, file in enumerate(files):
        pixels = read_picture(file)
        size = same_size(size, pixels, str(file))
        yield Picture(pixels, index)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Sorts runs of digits by their number."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(p)) if p.isascii() and p.isdigit() else (1, p) for p in parts]
