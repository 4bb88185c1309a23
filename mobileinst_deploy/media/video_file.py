"""A video file as a clip, decoded by FFmpeg: turned upright, in RGB, with rising time stamps."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.media.clip import FOLDER_RATE, Picture, same_size
from mobileinst_deploy.media.picture_file import check_size

#: What FFmpeg calls streams of pictures without a container, which say nothing of time.
_RAW_FORMATS = frozenset(
    {"av1", "cavsvideo", "dirac", "h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo"}
    | {"obu", "rawvideo", "vc1", "vvc"}
)
_BT709, _UNSPECIFIED = 1, 2  # FFmpeg's numbers, the same in every version


class VideoFile:
    """A video file; see :class:`Clip`.

    Rotation and mirroring in the metadata are applied, time stamps of a variable frame rate kept,
    grey and high-bit-depth pictures become 8-bit RGB, alpha is dropped. Pixels that are not square
    stay as they are stored.

    Args:
        path: The file.
        rate: Frames per second of a raw stream, and of nothing else.

    Raises:
        MediaError: It is missing, empty, too large, or no video that FFmpeg can read; or ``rate``
            is missing or not wanted.
    """

    still = False

    def __init__(self, path: Path, rate: Fraction | None = None) -> None:
        self._path = path
        self._given = rate
        self.name = path.name
        with _open_video(path, rate) as container:
            stream = container.streams.video[0]
            check_size(stream.codec_context.height, stream.codec_context.width, str(path))
            raw = not _RAW_FORMATS.isdisjoint(container.format.name.split(","))
            if raw and rate is None:
                raise MediaError(
                    f"{path} is a raw stream, which does not say how fast it is",
                    "Say it with --fps, for example --fps 30",
                )
            if rate is not None and not raw:
                raise MediaError(
                    f"{path} says itself how fast it is", "Leave --fps out, or give a raw stream"
                )
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or FOLDER_RATE)
            self.time_base = Fraction(stream.time_base or 1 / self.rate)
            # Recorded broadcasts begin hours into their clock.
            self._first = stream.start_time or 0
            self.start = self._first * self.time_base
            # Some containers count their frames; the others know how long they last.
            self._counted = stream.frames
            self.expected: int | None = stream.frames or None
            if self.expected is None and container.duration:
                seconds = Fraction(container.duration, av.time_base)
                self.expected = max(1, round(seconds * self.rate))
            audio = container.streams.audio
            self.audio = path if audio else None

    def __iter__(self) -> Iterator[Picture]:
        """See :class:`Clip`."""
        count, broken, last = 0, "", None
        turn: tuple[int, ...] | None = None
        size: tuple[int, int] | None = None
        with _open_video(self._path, self._given) as container:
            for frame in _decode(container):
                if isinstance(frame, str):
                    broken = frame
                    continue
                if turn is None:
                    # Once: a frame whose side data was looked at is freed late, by the collector.
                    turn = _display_matrix(frame)
                check_size(frame.height, frame.width, f"{self.name}, frame {count + 1},")
                pixels = _upright(frame, turn)
                size = same_size(size, pixels, f"{self.name}, frame {count + 1},")
                # Raw streams have no time stamps, and broken ones repeat them.
                pts = frame.pts
                if pts is None:
                    pts = 0 if last is None else last + round(1 / (self.rate * self.time_base))
                else:
                    pts -= self._first
                last = max(pts, 0 if last is None else last + 1)
                count += 1
                yield Picture(pixels, last)
        if not count:
            raise MediaError(
                f"{self._path} holds no picture that can be decoded{broken and ': ' + broken}",
                "Give a clip that plays",
            )
        # A container may count a few frames that its edit list hides.
        if self._counted - count > max(2, self._counted // 50):
            broken = f"it has {count} of its {self._counted} frames"
        if broken:
            raise MediaError(f"{self._path} is damaged or cut short: {broken}", "Repair the clip")


@places(0)
def open_container(path: Path, rate: Fraction | None = None) -> Any:
    """Open a media file with FFmpeg, as a PyAV container to be closed by the caller.

    Args:
        path: The file.
        rate: Frames per second of a raw stream.
    """
    # The prefix and the white list keep names like "concat:..." and playlists from reaching further
    # than the one file that was named.
    options = {"protocol_whitelist": "file"}
    if rate is not None:
        options["framerate"] = f"{rate.numerator}/{rate.denominator}"
    return av.open(f"file:{path}", options=options)


def _open_video(path: Path, rate: Fraction | None = None) -> Any:
    """Open a container that has a video stream.

    Raises:
        MediaError: It is missing, unreadable, or has none.
    """
    if path.exists() and not path.is_file():
        raise MediaError(f"{path} is a pipe or a device, not a file", "Give a clip in a file")
    try:
        container = open_container(path, rate)
    except (OSError, ValueError, av.error.FFmpegError) as error:
        if path.is_file() and path.stat().st_size == 0:
            reason = "it is empty"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            f"{path} cannot be read: {reason}", "Give a video, a picture or a folder of pictures"
        ) from error
    if not container.streams.video or container.streams.video[0].codec_context is None:
        container.close()
        raise MediaError(f"{path} has no video that can be decoded", "Give a clip with pictures")
    return container


def _decode(container: Any) -> Iterator[Any]:
    """Frames, and in place of what cannot be decoded, the reason as a string."""
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            yield error.strerror or str(error)
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            # One bad packet need not be the end; FFmpeg's own player goes on as well.
            yield error.strerror or str(error)
            continue
        yield from frames


def _display_matrix(frame: Any) -> tuple[int, ...]:
    """(a, b, c, d) with x' = a x + c y and y' = b x + d y: how the picture wants to be shown."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a, b, c, d


def _upright(frame: Any, turn: tuple[int, ...]) -> np.ndarray:
    """(H, W, 3) uint8 RGB with the display matrix applied."""
    # Players take untagged pictures of HD size for BT.709; swscale alone would take BT.601.
    untagged_hd = frame.colorspace == _UNSPECIFIED and frame.height >= 720
    rgb = frame.reformat(format="rgb24", src_colorspace=_BT709 if untagged_hd else None)
    pixels: np.ndarray = rgb.to_ndarray()
    a, b, c, d = turn
    # Quarter turns and mirrors are all that videos use.
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels)
