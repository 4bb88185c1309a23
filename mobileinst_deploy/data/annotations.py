"""What COCO's and YouTube-VIS's annotation files share, checked as it is read.

A file that contradicts itself is refused in one sentence. A single annotation that shows nothing
(no mask, no area, nothing inside the picture) is left out, counted by reason and remembered with an
example, since real collections hold a few of them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.text import shown, size_text
from mobileinst_deploy.data.annotation_file import (
    Category,
    ClipAnnotation,
    ClipFile,
    PictureAnnotation,
    PictureEntry,
    PictureFile,
    VideoEntry,
    crowd,
    file_names,
    number,
    read_file,
    wrong,
)
from mobileinst_deploy.data.samples import Annotation, Media
from mobileinst_deploy.data.segmentation import (
    BROKEN,
    FEW_POINTS,
    FLAT,
    NO_AREA,
    NO_MASK,
    REASONS,
    other_size,
    problem,
)
from mobileinst_deploy.media.picture_file import MAX_PIXELS

CROWD = "regions of many objects (iscrowd)"
UNSEEN = "tracks that no frame shows"
_AREAS = list[Annotated[float, msgspec.Meta(ge=0, le=1e15)] | None] | None
_NO_MASKS = msgspec.Raw(b"null")
_USE_MASKS = "Export them with masks: boxes are not enough to learn or to measure masks"
_NEXT_STEPS = {
    NO_MASK: _USE_MASKS,
    UNSEEN: _USE_MASKS,
    FEW_POINTS: _USE_MASKS,
    FLAT: "Write each segmentation as a list of polygons, [[x, y, x, y, x, y]]",
    CROWD: "Set iscrowd to 0 where an annotation is one object",
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
            f"{n} {reason}, such as {self.examples[reason]}" for reason, n in self.counts.items()
        ]


@dataclass(frozen=True)
class Catalogue:
    """An annotation file, read and checked.

    Attributes:
        path: The file.
        media: Pictures or clips in the file's order.
        classes: Class names in label order.
        category_ids: The file's own number of each class, or None for a class that it lacks.
        left_out: What could not be used.
        unseen: Tracks that no frame of their clip shows; see :class:`Media`.
    """

    path: Path
    media: list[Media]
    classes: tuple[str, ...]
    category_ids: tuple[int | None, ...]
    left_out: LeftOut
    unseen: LeftOut

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
        if any(not item.crowd for medium in self.media for item in medium.objects):
            return
        nothing = f"{self.path} holds nothing to {purpose}"
        counts = self.left_out.counts + self.unseen.counts
        if not counts and not any(medium.objects for medium in self.media):
            raise DatasetError(
                f"{nothing}: it has no annotations, as splits whose annotations are kept back",
                "Give a split with annotations, such as val for COCO or train for YouTube-VIS",
            )
        reasons = self.lines()
        crowds = sum(len(medium.objects) for medium in self.media)
        reason = counts.most_common(1)[0][0] if counts else CROWD
        if crowds:
            reasons.append(f"{crowds} {CROWD}")
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
    file = read_file(annotations, clips=clips)
    media = _media(file, annotations)
    entries: Sequence[PictureAnnotation | ClipAnnotation] = file.annotations or []
    kinds = [
        number(entry.category_id, f"annotations[{n}].category_id", annotations)
        for n, entry in enumerate(entries)
    ]
    names, labels = _match_classes(file.categories, set(kinds), classes, annotations)
    left_out, unseen = LeftOut(), LeftOut()
    known: dict[int, set[int]] = {}
    # Each entry is let go of as soon as it is read: of COCO all of them take 200 MB.
    file.annotations, left = None, deque(entries)
    del entries, file
    for n, kind in enumerate(kinds):
        entry = left.popleft()
        parent = "image_id" if isinstance(entry, PictureAnnotation) else "video_id"
        place = f"annotations[{n}]"
        owner = media.get(number(getattr(entry, parent), f"{place}.{parent}", annotations))
        if owner is None:
            value = shown(repr(getattr(entry, parent)), 60)
            raise wrong(annotations, f"{place}.{parent} is {value}, which it does not list")
        identity = n + 1 if entry.id is None else number(entry.id, f"{place}.id", annotations)
        numbers = known.setdefault(owner.id, set())
        if identity in numbers:
            identity = -n - 1  # some writers number every annotation alike
        numbers.add(identity)
        found = _annotation(entry, place, identity, labels[kind], owner, annotations)
        if isinstance(found, str):
            left_out.add(found, f"{place} of {shown(owner.files[0], 80)}")
        elif any(s is not None for s in found.segmentations):
            owner.objects.append(found)
        else:
            owner.unseen.append(found)
            unseen.add(UNSEEN, f"{place} of {shown(owner.files[0], 80)}")
    if folder is not None:
        _check_files(media.values(), folder, annotations)
    ids = {label: category for category, label in labels.items()}
    return Catalogue(
        annotations,
        list(media.values()),
        names,
        tuple(ids.get(i) for i in range(len(names))),
        left_out,
        unseen,
    )


def _match_classes(
    categories: list[Category], used: set[int], classes: Sequence[str] | None, path: Path
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in label order, and the label of each category that annotations use.

    What no annotation uses does not matter: labelme's ``_background_``, Roboflow's root.
    """
    names: dict[int, str] = {}
    for n, category in enumerate(categories):
        identity = number(category.id, f"categories[{n}].id", path)
        if identity in used and names.get(identity, category.name) != category.name:
            raise wrong(path, f"categories[{n}] is number {identity} for the second time")
        names.setdefault(identity, category.name)
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


def _media(file: PictureFile | ClipFile, path: Path) -> dict[int, Media]:
    """Pictures or clips by number."""
    kind = "videos" if isinstance(file, ClipFile) else "images"
    entries: Sequence[PictureEntry | VideoEntry] = (
        file.videos if isinstance(file, ClipFile) else file.images
    )
    media: dict[int, Media] = {}
    for n, entry in enumerate(entries):
        place = f"{kind}[{n}]"
        identity = number(entry.id, f"{place}.id", path)
        if identity in media:
            raise wrong(path, f"{place} is number {identity} for the second time")
        if entry.height * entry.width > MAX_PIXELS:
            size = size_text((entry.height, entry.width))
            raise wrong(path, f"{place} states {size} pixels, and {MAX_PIXELS:,} are the most")
        files = file_names(entry, place, path)
        media[identity] = Media(identity, (entry.height, entry.width), files)
    return media


def _annotation(
    entry: PictureAnnotation | ClipAnnotation,
    place: str,
    identity: int,
    label: int,
    owner: Media,
    path: Path,
) -> Annotation | str:
    """The annotation, or why it is left out."""
    if isinstance(entry, PictureAnnotation):
        segmentations, area = [entry.segmentation], entry.area
    else:
        segmentations, area = _by_frame(entry, place, owner, path), _mean_area(entry.areas)
    problems = [problem(segmentation, owner.size) for segmentation in segmentations]
    clip = isinstance(entry, ClipAnnotation)
    odd = _odd(segmentations, problems, owner.size) if clip else ()
    if all(problems) and not odd:
        worst = max((p for p in problems if p), key=REASONS.index)
        if not clip or worst not in (NO_MASK, NO_AREA):
            return worst
    return Annotation(
        id=identity,
        label=label,
        crowd=crowd(entry.iscrowd, f"{place}.iscrowd", path),
        segmentations=tuple(
            None if why else segmentation
            for segmentation, why in zip(segmentations, problems, strict=True)
        ),
        area=area,
        odd=odd,
    )


def _odd(
    segmentations: list[msgspec.Raw], problems: list[str | None], size: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """The frames whose mask is whole and of another size than the clip, with its pixels."""
    broken = [t for t, why in enumerate(problems) if why == BROKEN]
    areas = [(t, other_size(segmentations[t], size)) for t in broken]
    return tuple((t, area) for t, area in areas if area)


def _mean_area(areas: msgspec.Raw) -> float | None:
    """The mean of what a track's ``areas`` state; None where they state nothing usable."""
    try:
        stated = [area for area in msgspec.json.decode(areas, type=_AREAS) or () if area]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return sum(stated) / len(stated) if stated else None


def _by_frame(entry: ClipAnnotation, place: str, owner: Media, path: Path) -> list[msgspec.Raw]:
    """A clip annotation's masks, one for each frame."""
    try:
        masks = msgspec.json.decode(entry.segmentations, type=list[msgspec.Raw] | None)
    except msgspec.DecodeError:
        raise wrong(path, f"{place}.segmentations is not a list") from None
    if not masks:
        return [_NO_MASKS] * len(owner.files)
    if len(masks) != len(owner.files):
        raise wrong(
            path,
            f"{place} has {len(masks)} masks, and its video {owner.id} {len(owner.files)} frames",
        )
    return masks


def _check_files(media: Iterable[Media], folder: Path, path: Path) -> None:
    """Insist that every picture is there, at the cost of one directory listing per folder."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder of pictures", "Check the pictures' folder")
    listings: dict[Path, set[str]] = {}
    missing, total = [], 0
    for medium in media:
        for name in medium.files:
            total += 1
            file = folder / name
            if file.parent not in listings:
                there = file.parent.is_dir()
                listings[file.parent] = {p.name for p in file.parent.iterdir()} if there else set()
            if file.name not in listings[file.parent]:
                missing.append(name)
    if missing:
        raise DatasetError(
            f"{len(missing)} of the {total} pictures of {path} are missing from {folder}, "
            f"the first is {shown(missing[0], 100)}",
            "Check that the pictures' folder belongs to the annotations",
        )


def _listed(names: Sequence[str], most: int = 8) -> str:
    listed = ", ".join(shown(name, 60) for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
