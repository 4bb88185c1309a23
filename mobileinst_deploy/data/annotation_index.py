"""An annotation file as columns of numbers: what is in it, and where in its text each mask is.

Python's objects for the annotations of all of COCO take 430 MB, and every process would have its
own. Columns take a tenth of that, and all processes map the same ones from one file. A picture's
objects are made when they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import overload

import msgspec
import numpy as np

from mobileinst_deploy.core.text import tallied
from mobileinst_deploy.data.annotation_text import Text
from mobileinst_deploy.data.samples import Annotation, Media
from mobileinst_deploy.media.picture_file import MAX_PIXELS, MAX_SIDE

#: The columns and their numbers. A column of beginnings has one more entry, which is the end.
COLUMNS = {
    # Of each picture or clip: its number, its size, where its frames and its annotations begin.
    "media_ids": "<i8",
    "heights": "<i4",
    "widths": "<i4",
    "first_frames": "<i8",
    "first_objects": "<i8",
    # Of each frame: where its file's name begins in the names.
    "first_letters": "<i8",
    "names": "|u1",
    # Of each annotation, medium by medium: its number, its category's, whether it is a region of
    # many objects, whether any frame shows it, its area or NaN, and which mask is its first one.
    "object_ids": "<i8",
    "categories": "<i8",
    "crowds": "|b1",
    "seen": "|b1",
    "areas": "<f8",
    "first_masks": "<i8",
    # Of each mask, one for each frame: where its text begins, and how long that is; 0 for none.
    "starts": "<i8",
    "lengths": "<i4",
    # Masks of another size than their clip: the annotation, the frame, the mask's pixels.
    "odd": "<i8",
}


@dataclass
class LeftOut:
    """What of a file could not be used, by reason.

    Attributes:
        counts: How many.
        examples: Where the first of each reason is.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        """Count one more."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, example)

    def lines(self) -> list[str]:
        """One line for each reason, for people."""
        return [
            f"{tallied(n, reason)}, such as {self.examples[reason]}"
            for reason, n in self.counts.items()
        ]


@dataclass(frozen=True)
class Index:
    """An annotation file, read and checked against itself.

    Attributes:
        text: The file's.
        columns: See :data:`COLUMNS`.
        categories: (number, name) as the file lists them.
        left_out: What could not be used.
        unseen: Tracks that no frame of their clip shows; see :class:`Media`.
    """

    text: Text
    columns: Mapping[str, np.ndarray]
    categories: Sequence[tuple[int, str]]
    left_out: LeftOut
    unseen: LeftOut

    def __len__(self) -> int:
        return len(self.columns["media_ids"])

    def fits(self, size: int) -> bool:
        """Whether every number leads somewhere inside of what it counts.

        Args:
            size: Of the text, bytes.
        """
        c = self.columns
        media, frames, objects = len(self), len(c["first_letters"]) - 1, len(c["object_ids"])
        alike = (
            {len(c[n]) for n in ("media_ids", "heights", "widths")} == {media}
            and {len(c[n]) for n in ("categories", "crowds", "seen", "areas")} == {objects}
            and len(c["first_masks"]) == objects + 1
            and len(c["starts"]) == len(c["lengths"])
            and len(c["odd"]) % 3 == 0
        )
        if not alike or not (
            _rises(c["first_frames"], media, frames, by=1)
            and _rises(c["first_objects"], media, objects)
            and _rises(c["first_letters"], frames, len(c["names"]), by=1)
        ):
            return False
        # As many masks as the annotation's medium has frames.
        owners = np.repeat(np.arange(media), np.diff(c["first_objects"]))
        masks = np.concatenate([[0], np.cumsum(np.diff(c["first_frames"])[owners])])
        odd = c["odd"].reshape(-1, 3)
        return bool(
            np.array_equal(masks, c["first_masks"])
            and masks[-1] == len(c["starts"])
            and _within(c["heights"], 1, MAX_SIDE)
            and _within(c["widths"], 1, MAX_SIDE)
            and _within(c["lengths"], 0, size)
            and _within(c["starts"], 0, size)
            and _within(c["starts"] + c["lengths"], 0, size)
            and _within(odd[:, 0], 0, objects - 1)
            and _within(odd[:, 1:], 0, MAX_PIXELS)
            and _within(c["crowds"].view(np.uint8), 0, 1)
            and _within(c["seen"].view(np.uint8), 0, 1)
            and _is_text(c["names"], c["first_letters"][:-1])
            and np.isin(c["categories"], [number for number, _ in self.categories]).all()
        )

    def names(self) -> Iterator[str]:
        """The files of all frames of all media, in order."""
        letters = self.columns["names"].tobytes()
        bounds = self.columns["first_letters"].tolist()
        return (letters[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(bounds))

    def files(self, i: int) -> tuple[str, ...]:
        """The files of medium ``i``."""
        first, end = self.columns["first_frames"][i : i + 2].tolist()
        bounds = self.columns["first_letters"][first : end + 1].tolist()
        letters = self.columns["names"][bounds[0] : bounds[-1]].tobytes()
        return tuple(
            letters[a - bounds[0] : b - bounds[0]].decode("utf-8", "surrogatepass")
            for a, b in pairwise(bounds)
        )

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) of medium ``i``, pixels."""
        return int(self.columns["heights"][i]), int(self.columns["widths"][i])

    def length(self, i: int) -> int:
        """Frames of medium ``i``."""
        first, end = self.columns["first_frames"][i : i + 2].tolist()
        return int(end - first)

    def shown(self, labels: Mapping[int, int]) -> np.ndarray:
        """Which classes each medium has an object of, regions of many objects aside.

        Args:
            labels: The class index of each category that annotations use.

        Returns:
            (media, classes) bool; as many classes as ``labels`` reaches.
        """
        c = self.columns
        owners = np.repeat(np.arange(len(self)), np.diff(c["first_objects"]))
        counted = np.flatnonzero(c["seen"] & ~c["crowds"])
        found = np.zeros((len(self), max(labels.values(), default=-1) + 1), bool)
        found[owners[counted], [labels[n] for n in c["categories"][counted].tolist()]] = True
        return found

    def medium(self, i: int, labels: Mapping[int, int]) -> Media:
        """Medium ``i`` with its annotations.

        Args:
            i: From 0.
            labels: The class index of each category that annotations use.

        Raises:
            DatasetError: The file was changed after it had been checked.
        """
        self.text.require_unchanged()
        c = self.columns
        found = Media(int(c["media_ids"][i]), self.size(i), self.files(i))
        first, end = c["first_objects"][i : i + 2].tolist()
        frames = len(found.files)
        for n in range(first, end):
            mask, area = int(c["first_masks"][n]), float(c["areas"][n])
            starts = c["starts"][mask : mask + frames].tolist()
            lengths = c["lengths"][mask : mask + frames].tolist()
            item = Annotation(
                id=int(c["object_ids"][n]),
                label=labels[int(c["categories"][n])],
                crowd=bool(c["crowds"][n]),
                segmentations=tuple(
                    msgspec.Raw(self.text.read(start, length)) if length else None
                    for start, length in zip(starts, lengths, strict=True)
                ),
                area=None if area != area else area,
                odd=self._odd(n),
            )
            (found.objects if c["seen"][n] else found.unseen).append(item)
        return found

    def _odd(self, n: int) -> tuple[tuple[int, int], ...]:
        odd = self.columns["odd"]
        if not len(odd):
            return ()
        rows = odd.reshape(-1, 3)
        return tuple((int(t), int(pixels)) for of, t, pixels in rows[rows[:, 0] == n])


class MediaList(Sequence[Media]):
    """The pictures or clips of an index, each made when it is asked for.

    Args:
        index: The index.
        labels: The class index of each category that annotations use.
    """

    def __init__(self, index: Index, labels: Mapping[int, int]) -> None:
        self._index = index
        self._labels = labels

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, i: int) -> Media: ...
    @overload
    def __getitem__(self, i: slice) -> list[Media]: ...
    def __getitem__(self, i: int | slice) -> Media | list[Media]:
        """Medium ``i``, or several."""
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        return self._index.medium(range(len(self))[i], self._labels)

    def shown(self) -> np.ndarray:
        """(media, classes) bool: which classes each has an object of."""
        return self._index.shown(self._labels)


def _rises(bounds: np.ndarray, count: int, end: int, by: int = 0) -> bool:
    """Whether a column of beginnings runs from 0 to the end, each at least ``by`` further on."""
    return bool(
        len(bounds) == count + 1
        and bounds[0] == 0
        and bounds[-1] == end
        and (np.diff(bounds) >= by).all()
    )


def _within(values: np.ndarray, low: int, high: int) -> bool:
    return not values.size or bool(values.min() >= low and values.max() <= high)


def _is_text(letters: np.ndarray, begins: np.ndarray) -> bool:
    """Whether it is UTF-8 and no character goes on where a name begins."""
    try:
        letters.tobytes().decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return bool((letters[begins] & 0xC0 != 0x80).all())
