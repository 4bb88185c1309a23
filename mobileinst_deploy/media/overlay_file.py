"""Overlays going out: a video with its audio, or a picture."""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2
import numpy as np

from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.scratch import held, neighbour
from mobileinst_deploy.core.text import size_text
from mobileinst_deploy.media.clip import Clip
from mobileinst_deploy.media.video_file import open_container

#: Audio that an mp4 file can hold as it is.
_MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
#: The first that this FFmpeg has is used; the second is part of every FFmpeg.
_ENCODERS = ("libx264", "mpeg4")
#: Frames between the one who draws and the one who encodes.
_MOST_WAITING = 3
_TICK_S = 0.001
_BT709, _LIMITED = 1, 1  # FFmpeg's numbers, the same in every version


class OverlayFile:
    """Writes an overlay video, H.264 in mp4, as it comes; a context manager.

    A thread of its own encodes, a few frames behind, so that the next picture need not wait. What
    fails there is raised by the next :meth:`write`, or on leaving.

    Leaving the block, by an exception too, makes the file whole with what was written so far; when
    nothing was, or when writing itself failed, no file is left.

    Args:
        path: The mp4 file to make.
        clip: Gives time base, rate and audio. The audio is copied untouched where an mp4 file can
            hold it, else left out.

    Attributes:
        notes: What a reader of the result should know, such as a row added to an odd height.

    Raises:
        OutputError: The file cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, clip: Clip) -> None:
        self.notes: list[str] = []
        self._path = path
        self._clip = clip
        self._container: Any = None
        self._audio: _AudioCopy | None = None
        self._temporary: Path | None = None
        self._lock = contextlib.ExitStack()
        self._failure: Exception | None = None
        # Not a Queue, whose lock stays locked when a signal's exception comes at the wrong moment.
        self._waiting: queue.SimpleQueue[tuple[np.ndarray, int] | None] = queue.SimpleQueue()
        self._encoder = threading.Thread(target=self._encode_all, daemon=True)

    def __enter__(self) -> Self:
        self._encoder.start()
        return self

    def write(self, pixels: np.ndarray, pts: int) -> None:
        """Append one frame.

        Args:
            pixels: (H, W, 3) uint8, RGB, every time of the same size; not to be changed after.
            pts: As in :class:`Picture`.
        """
        if self._failure is not None:
            raise self._failure
        while self._waiting.qsize() >= _MOST_WAITING:
            time.sleep(_TICK_S)
        self._waiting.put((pixels, pts))

    def _encode_all(self) -> None:
        """Encode what comes until None does; after a failure, only wait for that."""
        while (given := self._waiting.get()) is not None:
            if self._failure is None:
                try:
                    self._encode(*given)
                except Exception as error:  # raised where frames come from; here it would hang them
                    self._failure = error

    def _encode(self, pixels: np.ndarray, pts: int) -> None:
        try:
            if self._container is None:
                self._start(*pixels.shape[:2])
            height, width = self._stream.height, self._stream.width
            if pixels.shape[:2] != (height, width):
                pixels = cv2.copyMakeBorder(
                    pixels,
                    0,
                    height - pixels.shape[0],
                    0,
                    width - pixels.shape[1],
                    cv2.BORDER_REPLICATE,
                )
            # Over the same memory: copying it costs as much as turning it into YUV.
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED
            )
            frame.time_base = self._stream.time_base
            frame.pts = self._rescale(pts)
            self._container.mux(self._stream.encode(frame))
            if self._audio is not None:
                self._audio.copy_until(pts * self._clip.time_base)
        except (OSError, av.error.FFmpegError) as error:
            raise no_output(self._path, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._end_encoder()
        except KeyboardInterrupt:
            # Only the first signal raises; what was drawn is written as a whole all the same.
            self._end_encoder()
            self._make_whole(error)
            raise
        self._make_whole(error)

    def _end_encoder(self) -> None:
        self._waiting.put(None)
        self._encoder.join()

    def _make_whole(self, error: BaseException | None) -> None:
        """Write what is still in the encoder, and give the file its name or remove it."""
        temporary, whole = self._temporary, False
        try:
            if self._failure is not None and error is None:
                raise self._failure
            if self._container is None or temporary is None or self._failure is not None:
                return
            self._container.mux(self._stream.encode(None))
            if self._audio is not None and error is None:
                self._audio.copy_until(None)
            self._container.close()
            whole = True
            temporary.replace(self._path)
        except (OSError, av.error.FFmpegError) as cause:
            raise no_output(self._path, cause) from cause
        finally:
            if self._audio is not None:
                self._audio.close()
            if not whole and self._container is not None:
                # FFmpeg tries to write once more, to a file that cannot be finished.
                with contextlib.suppress(OSError, av.error.FFmpegError):
                    self._container.close()
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            self._lock.close()

    def _start(self, height: int, width: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = neighbour(self._path, ".mp4")
        self._temporary.touch(exist_ok=False)
        self._lock.enter_context(held(self._temporary))
        self._container = av.open(
            str(self._temporary), "w", format="mp4", options={"movflags": "faststart"}
        )
        encoder = next(name for name in _ENCODERS if name in av.codecs_available)
        h264 = encoder == "libx264"
        stream = self._container.add_stream(encoder, rate=self._clip.rate)
        if not h264:
            self.notes.append("written as MPEG-4 part 2, because this FFmpeg has no H.264 encoder")
        # 4:2:0 halves the colour planes, so both sides must be even.
        stream.width, stream.height = width + width % 2, height + height % 2
        if (stream.width, stream.height) != (width, height):
            self.notes.append(
                f"padded from {size_text((height, width))} to "
                f"{size_text((stream.height, stream.width))} (height x width), since H.264 wants "
                "even sides"
            )
        stream.pix_fmt = "yuv420p"
        # As near to the picture as superfast at 23, in a little over half of its time.
        stream.options = {"preset": "ultrafast", "crf": "25"} if h264 else {"q:v": "3"}
        base = self._clip.time_base
        # MPEG-4 part 2 keeps its time base in 16 bits.
        if not h264 and base.denominator > 65535:
            base = Fraction(1, 60000)
        stream.time_base = stream.codec_context.time_base = base
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        self._stream = stream
        if self._clip.audio is not None:
            self._audio = _AudioCopy.open(self._clip.audio, self._container, self._clip.start)
            if self._audio is None:
                self.notes.append("without audio, which mp4 cannot hold as it is")

    def _rescale(self, pts: int) -> int:
        base: Fraction = self._stream.time_base
        return round(pts * self._clip.time_base / base)


class _AudioCopy:
    """Copies audio packets from one container to another, as far as the pictures have come."""

    def __init__(self, source: Any, stream: Any, target: Any, start: Fraction) -> None:
        self._source = source
        #: By how much packets are moved back, in units of their own time base.
        self._shift = round(start / stream.time_base)
        self._target = target
        self._stream = target.add_stream_from_template(stream)
        self._packets = source.demux(stream)
        self._next: Any = None

    @classmethod
    def open(cls, path: Path, target: Any, start: Fraction) -> _AudioCopy | None:
        source = open_container(path)
        stream = source.streams.audio[0]
        context = stream.codec_context  # None for a codec that FFmpeg does not know
        if context is not None and context.name.split("_")[0] in _MP4_AUDIO:
            return cls(source, stream, target, start)
        source.close()
        return None

    def copy_until(self, seconds: Fraction | None) -> None:
        """Copy what begins before that time; None for all that is left."""
        while True:
            if self._next is None:
                try:
                    self._next = next(self._packets, None)
                except av.error.InvalidDataError:
                    self._next = None
            packet = self._next
            if packet is None or packet.dts is None:
                return
            at = packet.dts - self._shift
            if seconds is not None and at * packet.time_base > seconds:
                return
            self._next = None
            if at < 0 < self._shift:
                continue  # before the first picture
            packet.dts = at
            packet.pts = at if packet.pts is None else packet.pts - self._shift
            packet.stream = self._stream
            self._target.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as a PNG file, whole or not at all.

    Raises:
        OutputError: The file cannot be written, or the disk is full.
    """
    data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def no_output(path: Path, error: OSError | av.error.FFmpegError) -> OutputError:
    """The sentence for a file that the operating system did not let us write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            f"there is no space left to write {path}", "Free some space or write elsewhere"
        )
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}", "Give a folder you may write to"
    )
