"""Clips with instance tracks from an annotation file in YouTube-VIS's 2019 and 2021 form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mobileinst_deploy.data.annotations import Media, Sample, read_catalogue, read_sample


class YtvisClips:
    """Clips and their tracks; see :mod:`mobileinst_deploy.data.annotations`.

    Args:
        images: Folder that the clips' ``file_names`` are relative to.
        annotations: JSON file with ``videos``, ``annotations`` and ``categories``; each annotation
            has one mask or null per frame in ``segmentations``.
        classes: A model's class names, which give the labels; default: the file's own.

    Attributes:
        classes: Class names in label order.
        category_ids: The file's own number of each class, or None for a class that it lacks.
        media: The clips as the file lists them.
        left_out: What of the annotations cannot be used, by reason.

    Raises:
        DatasetError: The file is broken or does not fit the pictures or the classes.
    """

    def __init__(
        self, images: Path, annotations: Path, classes: Sequence[str] | None = None
    ) -> None:
        self.catalogue = read_catalogue(annotations, images, classes, clips=True)
        self.folder = images
        self.classes = self.catalogue.classes
        self.category_ids = self.catalogue.category_ids
        self.media: list[Media] = self.catalogue.media
        self.left_out = self.catalogue.left_out

    def __len__(self) -> int:
        return len(self.media)

    def length(self, video: int) -> int:
        """Frames of clip ``video``."""
        return len(self.media[video].files)

    def frame(self, video: int, t: int) -> Sample:
        """Read frame ``t`` of clip ``video`` and its masks.

        Raises:
            MediaError: The picture cannot be read, or has not the annotated size.
        """
        return read_sample(self.media[video], t, self.folder)

    def clip(self, video: int) -> Iterator[Sample]:
        """The frames of clip ``video`` in order, read one at a time.

        Raises:
            MediaError: A picture cannot be read, or has not the annotated size.
        """
        return (self.frame(video, t) for t in range(self.length(video)))
