"""Readers of pictures and clips."""

from __future__ import annotations

import struct
from itertools import islice

import cv2
import numpy as np

from fuzz.target import Target, file_of, scratch
from mobileinst_deploy.media.pictures import read_picture
from mobileinst_deploy.media.video import open_clip


def _clip(data: bytes) -> object:
    return list(islice(open_clip(str(file_of("clip.avi", data))), 3))


def _clip_seeds() -> list[bytes]:
    made = []
    for code, suffix in (("MJPG", "avi"), ("FFV1", "avi"), ("mp4v", "mp4")):
        path = scratch() / f"seed.{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (32, 24))
        for shade in (0, 90, 180):
            writer.write(np.full((24, 32, 3), shade, np.uint8))
        writer.release()
        made.append(path.read_bytes())
    return made


def _picture(data: bytes) -> object:
    return read_picture(file_of("picture", data))


def _picture_seeds() -> list[bytes]:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    suffixes = (".png", ".jpg", ".bmp", ".webp", ".tif")
    made = [cv2.imencode(suffix, image)[1].tobytes() for suffix in suffixes]
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    jpeg = made[1]
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    return [*made, turned]


TARGETS = {
    "picture": Target(_picture, _picture_seeds, text=False, share=0.3),
    "clip": Target(_clip, _clip_seeds, text=False, share=0.3),
}
