"""An animated WebP or PNG file as a clip: FFmpeg reads no such WebP, OpenCV one picture of either.

Other animations (GIF) are videos to FFmpeg, and are read by it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.media.clip import FOLDER_RATE, Picture
from mobileinst_deploy.media.picture_file import read_bytes, read_header

_MILLISECOND = Fraction(1, 1000)


class Animation:
    """The pictures of an animated file, each shown as long as it says; see :class:`Clip`.

    Pictures that the file gives in part are whole here, alpha is dropped, and what it says of
    repetitions does not matter. A picture without a time is shown for that of a folder's.

    Args:
        path: The file.

    Raises:
        MediaError: It cannot be read, or is no animation.
    """

    still = False
    audio: Path | None = None
    start = Fraction(0)
    time_base = _MILLISECOND

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self._data = read_bytes(path)
        frames = read_header(self._data, path).frames
        if frames < 2:
            raise MediaError(f"{path} is no animation", "Give it as a picture")
        self.expected: int | None = frames
        # What the whole takes is known only at its end; the first picture's time stands for all.
        self.rate = 1 / (next(self._shown())[1] * _MILLISECOND)

    def __iter__(self) -> Iterator[Picture]:
        """See :class:`Clip`."""
        time = 0
        for pixels, milliseconds in self._shown():
            yield Picture(pixels, time)
            time += milliseconds

    def _shown(self) -> Iterator[tuple[np.ndarray, int]]:
        """Each picture, and how long it is shown, ms."""
        count = 0
        try:
            with Image.open(io.BytesIO(self._data)) as file:
                for count in range(self.expected or 0):
                    file.seek(count)
                    pixels = np.asarray(file.convert("RGB"))
                    # Tenths of milliseconds are rounded, and 0 is what some writers put for none.
                    yield pixels, round(file.info.get("duration") or 1000 / FOLDER_RATE) or 1
        except Exception as error:  # a damaged picture can fail in any way
            raise MediaError(
                f"{self._path} is damaged or cut short: picture {count + 1} of {self.expected} "
                f"cannot be read: {shown(str(error), 120)}",
                "Repair it, or give its pictures in a folder",
            ) from error
