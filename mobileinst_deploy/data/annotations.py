"""What COCO's and YouTube-VIS's annotation files share, held against a model and the pictures.

What is in the file comes from its index; see :mod:`.indexing` for what is refused and what is left
out of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.text import counted, shown, tallied
from mobileinst_deploy.data.annotation_file import wrong
from mobileinst_deploy.data.annotation_index import Index, LeftOut, MediaList
from mobileinst_deploy.data.index_file import open_index
from mobileinst_deploy.data.indexing import UNSEEN
from mobileinst_deploy.data.segmentation import FEW_POINTS, FLAT, NO_MASK

CROWD = "regions of many objects (iscrowd)"
_USE_MASKS = "Export them with masks: boxes are not enough to learn or to measure masks"
_NEXT_STEPS = {
    NO_MASK: _USE_MASKS,
    UNSEEN: _USE_MASKS,
    FEW_POINTS: _USE_MASKS,
    FLAT: "Write each segmentation as a list of polygons, [[x, y, x, y, x, y]]",
    CROWD: "Set iscrowd to 0 where an annotation is one object",
}


@dataclass(frozen=True)
class Catalogue:
    """An annotation file, read and checked.

    Attributes:
        path: The file.
        index: What is in it.
        media: Pictures or clips in the file's order, each made when it is asked for.
        classes: Class names in label order.
        category_ids: The file's own number of each class, or None for a class that it lacks.
    """

    path: Path
    index: Index
    media: MediaList
    classes: tuple[str, ...]
    category_ids: tuple[int | None, ...]

    @property
    def left_out(self) -> LeftOut:
        """What could not be used."""
        return self.index.left_out

    @property
    def unseen(self) -> LeftOut:
        """Tracks that no frame of their clip shows; see :class:`Media`."""
        return self.index.unseen

    @property
    def crowds(self) -> LeftOut:
        """Regions of many objects, which are neither left out nor told apart."""
        columns = self.index.columns
        found = np.flatnonzero(columns["crowds"] & columns["seen"])
        crowds = LeftOut()
        if len(found):
            owner = int(np.searchsorted(columns["first_objects"], found[0], "right")) - 1
            crowds.add(CROWD, f"in {self.index.files(owner)[0]}")
            crowds.counts[CROWD] = len(found)
        return crowds

    def objects(self) -> dict[str, int]:
        """How many objects told apart there are of each class."""
        columns = self.index.columns
        told = columns["categories"][columns["seen"] & ~columns["crowds"]]
        return {
            name: int((told == category).sum())
            for name, category in zip(self.classes, self.category_ids, strict=True)
            if category is not None
        }

    def lines(self) -> list[str]:
        """What training does not learn from, one line for each reason."""
        return self.left_out.lines() + self.unseen.lines()

    def require_objects(self, purpose: str) -> None:
        """Insist that there is a single object told apart.

        Args:
            purpose: What for, such as ``evaluate on``.

        Raises:
            DatasetError: There is none; it says why.
        """
        if any(self.objects().values()):
            return
        nothing = f"{self.path} holds nothing to {purpose}"
        counts = self.left_out.counts + self.unseen.counts
        if not counts and not self.crowds.counts:
            raise DatasetError(
                f"{nothing}: it has no annotations, as splits whose annotations are kept back",
                "Give a split with annotations, such as val for COCO or train for YouTube-VIS",
            )
        reasons = self.lines()
        crowds = self.crowds.counts[CROWD]
        reason = counts.most_common(1)[0][0] if counts else CROWD
        if crowds:
            reasons.append(tallied(crowds, CROWD))
        next_step = _NEXT_STEPS.get(reason, "Check how the annotations were written")
        raise DatasetError(f"{nothing}; left out are {'; '.join(reasons)}", next_step)


@places(0)
def read_catalogue(
    annotations: Path, folder: Path | None, classes: Sequence[str] | None, *, clips: bool
) -> Catalogue:
    """Read an annotation file and check it against itself, a model and the pictures' folder.

    Args:
        annotations: The JSON file.
        folder: Where its pictures are; None where they are not needed.
        classes: A model's class names; default: the file's own, in the order of their numbers.
        clips: Whether it is in YouTube-VIS's form, else in COCO's.

    Raises:
        DatasetError: The file is broken, contradicts itself, has annotations of classes that the
            model does not have, or names pictures that are missing.
    """
    index = open_index(annotations, clips=clips)
    used = set(np.unique(index.columns["categories"]).tolist())
    names, labels = _match_classes(index.categories, used, classes, annotations)
    if folder is not None:
        _check_files(index, folder, annotations)
    ids = {label: category for category, label in labels.items()}
    return Catalogue(
        annotations,
        index,
        MediaList(index, labels),
        names,
        tuple(ids.get(i) for i in range(len(names))),
    )


def _match_classes(
    categories: Sequence[tuple[int, str]],
    used: set[int],
    classes: Sequence[str] | None,
    path: Path,
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in label order, and the label of each category that annotations use.

    What no annotation uses does not matter: labelme's ``_background_``, Roboflow's root.
    """
    names: dict[int, str] = {}
    for n, (identity, name) in enumerate(categories):
        if identity in used and names.get(identity, name) != name:
            raise wrong(path, f"categories[{n}] is number {identity} for the second time")
        names.setdefault(identity, name)
    if unlisted := sorted(used - set(names)):
        raise wrong(path, f"annotations are of category {unlisted[0]}, which it does not list")
    owners: dict[str, int] = {}
    for identity in sorted(used):
        name = names[identity]
        if name in owners:
            raise wrong(
                path,
                f"annotations use {shown(name, 60)!r} under two numbers, {owners[name]} and "
                f"{identity}",
            )
        owners[name] = identity
    for identity in sorted(set(names) - used):
        owners.setdefault(names[identity], identity)
    wanted = (
        tuple(classes) if classes is not None else tuple(sorted(owners, key=owners.__getitem__))
    )
    labels = {name: label for label, name in enumerate(wanted)}
    unknown = [names[i] for i in sorted(used) if names[i] not in labels]
    if unknown:
        lacking = [name for name in wanted if name not in owners]
        rest = f", and lacks the model's {_listed(lacking)}" if lacking else ""
        raise DatasetError(
            f"{path} names classes that the model does not have: {_listed(unknown)}{rest}",
            "Use a model and annotations of the same classes",
        )
    return wanted, {owners[name]: label for name, label in labels.items() if name in owners}


def _check_files(index: Index, folder: Path, path: Path) -> None:
    """Insist that every picture is there, at the cost of one directory listing per folder."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder of pictures", "Check the pictures' folder")
    listings: dict[str, set[str]] = {}
    missing, total = [], 0
    for name in index.names():
        total += 1
        # PurePath would take five times as long.
        parent, _, file = os.path.normpath(name).rpartition("/")
        if parent not in listings:
            place = folder / parent
            listings[parent] = {p.name for p in place.iterdir()} if place.is_dir() else set()
        if file not in listings[parent]:
            missing.append(name)
    if missing:
        raise DatasetError(
            f"{folder} lacks {counted(len(missing), 'picture')} of {total:,} that {path} names, the"
            f" first is {shown(missing[0], 100)}",
            "Check that the pictures' folder belongs to the annotations",
        )


def _listed(names: Sequence[str], most: int = 8) -> str:
    listed = ", ".join(shown(name, 60) for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
