"""Pictures with instance masks from an annotation file in COCO's form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mobileinst_deploy.data.annotations import Media, Sample, read_catalogue, read_sample


class CocoPictures:
    """Pictures and their instances; see :mod:`mobileinst_deploy.data.annotations`.

    Args:
        images: Folder of the pictures.
        annotations: JSON file with ``images``, ``annotations`` and ``categories``; masks as
            polygons or run lengths, compressed or not.
        classes: A model's class names, which give the labels; default: the file's own.

    Attributes:
        classes: Class names in label order.
        category_ids: The file's own number of each class, or None for a class that it lacks.
        media: The pictures as the file lists them.
        left_out: What of the annotations cannot be used, by reason.

    Raises:
        DatasetError: The file is broken or does not fit the pictures or the classes.
    """

    def __init__(
        self, images: Path, annotations: Path, classes: Sequence[str] | None = None
    ) -> None:
        self.catalogue = read_catalogue(annotations, images, classes, clips=False)
        self.folder = images
        self.classes = self.catalogue.classes
        self.category_ids = self.catalogue.category_ids
        self.media: list[Media] = self.catalogue.media
        self.left_out = self.catalogue.left_out

    def __len__(self) -> int:
        return len(self.media)

    def sample(self, i: int) -> Sample:
        """Read picture ``i`` and its masks.

        Raises:
            MediaError: The picture cannot be read, or has not the annotated size.
        """
        return read_sample(self.media[i], 0, self.folder)

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(i) for i in range(len(self)))
