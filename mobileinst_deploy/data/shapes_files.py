"""Made clips as files: JPEG frames with annotations in COCO's and YouTube-VIS's form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2

from mobileinst_deploy.core.errors import OutputError
from mobileinst_deploy.core.files import write_atomically, write_json
from mobileinst_deploy.core.masks import box, encode
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.data.shapes import CLASSES, ShapesClip, ShapesFrame, Split, clip_seed

#: Names of what :func:`write_shapes` writes into its folder.
FRAMES = "JPEGImages"
COCO_FILE = "instances.json"
YTVIS_FILE = "ytvis.json"
_JPEG_QUALITY = 95


def write_shapes(
    folder: Path,
    split: Split,
    clips: int,
    length: int = 24,
    size: tuple[int, int] = (192, 320),
    *,
    first: int = 0,
    suffix: Literal[".jpg", ".png"] = ".jpg",
    progress: Progress = silent,
) -> None:
    """Write clips of a split as pictures and two annotation files over the same pictures.

    ``JPEGImages/<clip>/<frame>.jpg``, ``instances.json`` with every frame as a picture, and
    ``ytvis.json`` with every clip and its tracks. The same arguments write the same bytes.

    Args:
        folder: Made when missing; files of the same names are replaced.
        split: Which seeds to draw.
        clips: How many clips.
        length: Frames per clip.
        size: (height, width) in pixels.
        first: Index of the first clip within the split.
        suffix: ``.png`` keeps every pixel and takes several times the space.
        progress: Told of every clip.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    made = (ShapesClip(clip_seed(split, first + i), length, size) for i in range(clips))
    last = first + clips - 1
    write_clips(
        folder,
        made,
        CLASSES,
        f"shapes, split {split}, clips {first} to {last}",
        (clips, length),
        size,
        first=first,
        suffix=suffix,
        progress=progress,
    )


def write_clips(
    folder: Path,
    made: Iterable[Iterable[ShapesFrame]],
    classes: Sequence[str],
    description: str,
    extent: tuple[int, int],
    size: tuple[int, int],
    *,
    first: int = 0,
    suffix: Literal[".jpg", ".png"] = ".jpg",
    progress: Progress = silent,
) -> None:
    """Write clips that are made frame by frame, as :func:`write_shapes` does.

    Args:
        folder: As there.
        made: The clips, each an iterable of its frames.
        classes: Class names, in label order.
        description: Of the whole, for the files' ``info``.
        extent: How many clips, and how many frames each.
        size: (height, width) in pixels.
        first: The first clip's number in file names.
        suffix: As there.
        progress: Told of every clip.

    Raises:
        OutputError: The folder cannot be written or is full.
    """
    clips, length = extent
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    videos: list[dict[str, Any]] = []
    tracks: list[dict[str, Any]] = []
    shape = {"height": size[0], "width": size[1]}
    for clip, frames in enumerate(made):
        index = first + clip
        files = [f"{index:05d}/{t:05d}{suffix}" for t in range(length)]
        videos.append({"id": clip + 1, **shape, "length": length, "file_names": files})
        of_clip: dict[int, dict[str, Any]] = {}
        for t, drawn in enumerate(frames):
            _write_picture(folder / FRAMES / files[t], drawn.image)
            images.append({"id": len(images) + 1, **shape, "file_name": files[t]})
            for mask, label, track_id in zip(
                drawn.masks, drawn.labels.tolist(), drawn.track_ids.tolist(), strict=True
            ):
                rle, area, bounds = encode(mask), int(mask.sum()), list(box(mask))
                category = {"category_id": label + 1, "iscrowd": 0}
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": len(images),
                        **category,
                        "segmentation": rle,
                        "area": area,
                        "bbox": bounds,
                    }
                )
                track = of_clip.setdefault(
                    track_id,
                    {
                        "id": 0,
                        "video_id": clip + 1,
                        **category,
                        **shape,
                        "length": length,
                        "segmentations": [None] * length,
                        "bboxes": [None] * length,
                        "areas": [None] * length,
                    },
                )
                track["segmentations"][t] = rle
                track["bboxes"][t] = bounds
                track["areas"][t] = area
        for _, track in sorted(of_clip.items()):
            tracks.append({**track, "id": len(tracks) + 1})
        progress("drawing clips", clip + 1, clips)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    head = {"info": {"description": description}, "categories": categories}
    write_json(folder / COCO_FILE, {**head, "images": images, "annotations": objects})
    write_json(folder / YTVIS_FILE, {**head, "videos": videos, "annotations": tracks})


def _write_picture(path: Path, image: Any) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    done, data = cv2.imencode(path.suffix, image[..., ::-1], options)
    if not done:
        raise OutputError(f"{path} cannot be encoded", "Write the pictures as .png or .jpg")
    write_atomically(path, lambda temporary: _write_bytes(temporary, data.tobytes()))


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
