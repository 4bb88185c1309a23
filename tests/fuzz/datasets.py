"""Readers of annotation files, their indices and results for servers."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable
from functools import cache

import numpy as np

from fuzz.target import Target, file_of, scratch, texts
from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.data.annotation_file import open_file
from mobileinst_deploy.data.annotation_text import HeldText
from mobileinst_deploy.data.index_file import Key, map_index, write_index
from mobileinst_deploy.data.indexing import index_of
from mobileinst_deploy.workflows.results_file import read_results

_TRIANGLE = [4.0, 4.0, 20.0, 4.0, 4.0, 16.0]
_RLE = {"size": [24, 32], "counts": [100, 8, 660]}
_CATEGORIES = [{"id": 7, "name": "cat"}, {"id": "3", "name": "dog"}]
_SIZE = {"height": 24, "width": 32}


def _coco(data: bytes) -> object:
    pictures = AnnotatedSet(scratch(), file_of("coco.json", data))
    return [pictures.sample(i) for i in range(min(len(pictures), 2))]


def _coco_seeds() -> list[bytes]:
    first = {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [_TRIANGLE]}
    second = {"id": "2", "image_id": 2.0, "category_id": 3, "iscrowd": "1", "segmentation": _RLE}
    images = [{"id": i + 1, "file_name": f"{n}.png", **_SIZE} for i, n in enumerate("ab")]
    both = [{**first, "area": 96.5, "bbox": [4, 4, 16, 12]}, second]
    return texts(
        {"images": images, "annotations": both, "categories": _CATEGORIES},
        {"images": images, "annotations": None, "categories": _CATEGORIES, "info": {}},
    )


def _ytvis(data: bytes) -> object:
    clips = AnnotatedSet(scratch(), file_of("ytvis.json", data), clips=True)
    return [clips.sample(0, t) for t in range(min(clips.length(0), 2))] if len(clips) else []


def _ytvis_seeds() -> list[bytes]:
    video = {"id": 1, "file_names": ["a.png", "b.png"], "length": 2, **_SIZE}
    track = {"id": 1, "video_id": 1, "category_id": 7, "iscrowd": 0, "areas": [96, None]}
    tracks = [{**track, "segmentations": [_RLE, None]}, {**track, "segmentations": [[_TRIANGLE]]}]
    return texts({"videos": [video], "annotations": tracks[:1], "categories": _CATEGORIES})


@cache
def _large() -> tuple[Key, HeldText]:
    os.environ["XDG_CACHE_HOME"] = str(scratch() / "cache")
    held = HeldText(file_of("large.json", _coco_seeds()[0]))
    return Key(held.sha256(), clips=False), held


def _index(data: bytes) -> object:
    """An index sealed as a forger would, so that its numbers are looked at."""
    key, held = _large()
    head, end, body = data.partition(b"\n\0")
    begins = [match[1] for match in re.finditer(rb'"sha256":"([0-9a-f]{64})"', head)]
    if begins:
        start = len(head) + 1
        start += -start % 64
        head = head.replace(begins[-1], hashlib.sha256(data[start:]).hexdigest().encode())
    key.path.parent.mkdir(parents=True, exist_ok=True)
    key.path.write_bytes(head + end + body)
    key.path.chmod(0o600)
    found = map_index(key, held)
    return found and [found.medium(i, {3: 0, 7: 1}) for i in range(len(found))]


def _index_seeds() -> list[bytes]:
    key, held = _large()
    write_index(key, index_of(open_file(held.path, held, clips=False)))
    return [key.path.read_bytes()]


# Results for servers


def _results(name: str, listed: Callable[[], list[bytes]], *, clips: bool) -> Callable:
    def read(data: bytes) -> object:
        known = AnnotatedSet(None, file_of("listed.json", listed()[0]), clips=clips)
        return read_results(file_of(name, data), known, clips=clips)

    return read


def _results_seeds(*, clips: bool) -> list[bytes]:
    mask = encode(np.eye(24, 32) > 0)
    result = {"category_id": 7, "score": 0.5}
    if clips:
        return texts([{**result, "video_id": 1, "segmentations": [mask, None]}])
    return texts([{**result, "image_id": 1, "segmentation": mask}])


def _zipped_results() -> list[bytes]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.json", _results_seeds(clips=False)[0])
    return [packed.getvalue()]


TARGETS = {
    "coco": Target(_coco, _coco_seeds),
    "ytvis": Target(_ytvis, _ytvis_seeds),
    "annotation_index": Target(_index, _index_seeds, text=False),
    "coco_results": Target(
        _results("r.json", _coco_seeds, clips=False), lambda: _results_seeds(clips=False)
    ),
    "ytvis_results": Target(
        _results("r.json", _ytvis_seeds, clips=True), lambda: _results_seeds(clips=True)
    ),
    "zipped_results": Target(
        _results("r.zip", _coco_seeds, clips=False), _zipped_results, text=False
    ),
}
