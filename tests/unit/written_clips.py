"""Clips as files, written for a test."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path,
    pictures: list[np.ndarray],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
) -> Path:
    """Encode pictures as a video file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "10"}
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if pts is None else pts[number]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_tone(path: Path, video: list[np.ndarray] | None = None, codec: str = "aac") -> Path:
    """A file with a second of sound, and pictures at 10 a second if any are given."""
    with av.open(str(path), "w") as container:
        stream = None
        if video is not None:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width = video[0].shape[:2]
            stream.pix_fmt = "yuv420p"
        audio = container.add_stream(codec, rate=16000)
        for picture in video or []:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))
        samples = (8000 * np.sin(np.arange(16000) / 10)).astype(np.int16).reshape(1, -1)
        for start in range(0, 16000, 1000):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, start : start + 1000]), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path
