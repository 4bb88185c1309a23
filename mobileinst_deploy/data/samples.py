"""Pictures and clips as an annotation file lists them, and one picture with what it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import msgspec
import numpy as np

from mobileinst_deploy.core.errors import MediaError
from mobileinst_deploy.core.places import at
from mobileinst_deploy.core.text import size_text
from mobileinst_deploy.data.segmentation import to_mask
from mobileinst_deploy.media.pictures import is_turned, read_picture


@dataclass(frozen=True)
class Sample:
    """One picture and the K objects that it shows.

    Attributes:
        image_id: Of the picture, or of the clip that it is a frame of.
        image: (H, W, 3) uint8, RGB.
        masks: (K, H, W) bool, none empty.
        labels: (K,) int64, class indices.
        crowd: (K,) bool; True for a region of many objects that nobody told apart.
        track_ids: (K,) int64, the annotations' own numbers: the same in all frames of a clip.
    """

    image_id: int
    image: np.ndarray = field(repr=False)
    masks: np.ndarray = field(repr=False)
    labels: np.ndarray
    crowd: np.ndarray
    track_ids: np.ndarray


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, in a picture or throughout a clip.

    Attributes:
        id: Its number in the file.
        label: Class index.
        crowd: Whether it is a region of many objects.
        segmentations: One entry per frame, a single one for a picture: the JSON text of COCO's
            polygons or run lengths, or None where the object does not show.
        area: In pixels as the file states it, or None; of a track the mean of the frames for which
            it states one.
        odd: Of a track, pixels of the masks that have another size than the clip, by frame.
    """

    id: int
    label: int
    crowd: bool
    segmentations: tuple[msgspec.Raw | None, ...]
    area: float | None
    odd: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Media:
    """A picture or a clip as the file lists it.

    Attributes:
        id: Its number in the file.
        size: (height, width) in pixels.
        files: Its frames' files, relative to the pictures' folder; a single one for a picture.
        objects: What it shows.
        unseen: Tracks that none of its frames shows: nothing to learn from, but YouTube-VIS counts
            each as an object that was not found.
    """

    id: int
    size: tuple[int, int]
    files: tuple[str, ...]
    objects: list[Annotation] = field(default_factory=list)
    unseen: list[Annotation] = field(default_factory=list)


def read_frame(medium: Media, frame: int, folder: Path) -> np.ndarray:
    """Read one picture of the catalogue as (H, W, 3) uint8, RGB.

    Args:
        medium: The picture or clip.
        frame: Which frame of it, from 0.
        folder: Where the pictures are.

    Raises:
        MediaError: The picture cannot be read, or has another size than the file states.
    """
    path = folder / medium.files[frame]
    with at(path):
        return _of_size(medium, path)


def _of_size(medium: Media, path: Path) -> np.ndarray:
    """A picture of the size that the annotations state."""
    image = read_picture(path)
    size = image.shape[0], image.shape[1]
    if size == medium.size:
        return image
    if size[::-1] == medium.size and is_turned(path):
        raise MediaError(
            f"{path} is turned by its EXIF orientation: it shows as {size_text(size)} "
            f"(height x width) and is stored, and annotated, as {size_text(medium.size)}",
            "Turn the stored pictures and drop their EXIF orientation, or annotate them as they"
            " show",
        )
    raise MediaError(
        f"{path} has {size_text(size)} pixels (height x width), and its annotations are for "
        f"{size_text(medium.size)}",
        "Use the pictures that were annotated",
    )


def read_sample(medium: Media, frame: int, folder: Path) -> Sample:
    """Read one picture and rasterise what it shows; the arguments are those of :func:`read_frame`.

    Raises:
        MediaError: The picture cannot be read, or has another size than the file states.
    """
    image = read_frame(medium, frame, folder)
    shows: list[Annotation] = []
    masks = np.empty((len(medium.objects), *medium.size), bool)
    for item in medium.objects:
        segmentation = item.segmentations[frame]
        if segmentation is None:
            continue
        # Run lengths go down the columns. OpenCV turns them four times as fast as numpy does.
        columns = to_mask(segmentation, medium.size).T
        if columns.any():
            cv2.transpose(columns.view(np.uint8), masks[len(shows)].view(np.uint8))
            shows.append(item)
    return Sample(
        image_id=medium.id,
        image=image,
        masks=masks[: len(shows)],
        labels=np.array([item.label for item in shows], np.int64),
        crowd=np.array([item.crowd for item in shows], bool),
        track_ids=np.array([item.id for item in shows], np.int64),
    )
