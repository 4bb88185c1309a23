"""Pictures or clips with instance masks, from a file in COCO's or YouTube-VIS's form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mobileinst_deploy.data.annotations import read_catalogue
from mobileinst_deploy.data.samples import Media, Sample, read_sample


class AnnotatedSet:
    """Media and their instances; see :mod:`mobileinst_deploy.data.annotations`.

    A picture is a medium of one frame, so that pictures and clips are read alike.

    Args:
        images: Folder that the file's names are relative to; None where no picture will be read.
        annotations: JSON file: COCO's, with ``images``, ``annotations`` and ``categories``, masks
            as polygons or run lengths; or YouTube-VIS's of 2019 and 2021, with ``videos`` and one
            mask or null per frame in ``segmentations``.
        classes: A model's class names, which give the labels; default: the file's own.
        clips: Whether the file is of YouTube-VIS's form.

    Attributes:
        classes: Class names in label order.
        category_ids: The file's own number of each class, or None for a class that it lacks.
        media: The pictures or clips as the file lists them, each made when it is asked for.
        left_out: What of the annotations cannot be used, by reason.
        folder: Of the pictures.

    Raises:
        DatasetError: The file is broken or does not fit the pictures or the classes.
    """

    def __init__(
        self,
        images: Path | None,
        annotations: Path,
        classes: Sequence[str] | None = None,
        *,
        clips: bool = False,
    ) -> None:
        self.catalogue = read_catalogue(annotations, images, classes, clips=clips)
        self.folder = images or Path()
        self.classes = self.catalogue.classes
        self.category_ids = self.catalogue.category_ids
        self.media: Sequence[Media] = self.catalogue.media
        self.left_out = self.catalogue.left_out

    def __len__(self) -> int:
        return len(self.media)

    def length(self, i: int) -> int:
        """Frames of medium ``i``; a picture has one."""
        return self.catalogue.index.length(i)

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) of medium ``i``, pixels."""
        return self.catalogue.index.size(i)

    def sample(self, i: int, t: int = 0) -> Sample:
        """Read frame ``t`` of medium ``i`` and its masks.

        Raises:
            MediaError: The picture cannot be read, or has not the annotated size.
        """
        return read_sample(self.media[i], t, self.folder)

    def clip(self, i: int) -> Iterator[Sample]:
        """The frames of medium ``i`` in order, read one at a time.

        Raises:
            MediaError: A picture cannot be read, or has not the annotated size.
        """
        return (self.sample(i, t) for t in range(self.length(i)))

    def __iter__(self) -> Iterator[Sample]:
        return (sample for i in range(len(self)) for sample in self.clip(i))
