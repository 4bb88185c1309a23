"""Small annotation files in COCO's and YouTube-VIS's form, and how tests read them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobileinst_deploy.core.masks import encode, rle_runs
from mobileinst_deploy.data import annotation_text, index_file
from mobileinst_deploy.data.annotated import AnnotatedSet

HEIGHT, WIDTH = 24, 32


SIZE = {"height": HEIGHT, "width": WIDTH}


TRIANGLE = [4.0, 4.0, 20.0, 4.0, 4.0, 16.0]


BLOCK = np.zeros((HEIGHT, WIDTH), bool)


CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def indexed(monkeypatch: pytest.MonkeyPatch, block: int = 400) -> None:
    """Let small files count as large ones: read in pieces, and kept as an index."""
    monkeypatch.setattr(index_file, "SMALL_BYTES", 0)
    monkeypatch.setattr(annotation_text, "BLOCK_BYTES", block)


def plain(mask: np.ndarray) -> dict[str, Any]:
    rle = encode(mask)
    return {"size": rle["size"], "counts": rle_runs(rle).tolist()}


def pictures(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [
            {"id": 11, "file_name": "a.png", **SIZE},
            {"id": 5, "file_name": "b.png", **SIZE},
        ],
        "annotations": [
            {"id": i + 1, "image_id": 11, "category_id": 7, **a} for i, a in enumerate(annotations)
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def clips(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "videos": [{"id": 2, "file_names": ["v/0.png", "v/1.png", "v/2.png"], **SIZE}],
        "annotations": [
            {"id": i + 1, "video_id": 2, "category_id": 3, "iscrowd": 0, **a}
            for i, a in enumerate(annotations)
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def write(folder: Path, document: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def read_pictures(folder: Path, document: Any, classes: Any = None) -> AnnotatedSet:
    return AnnotatedSet(folder, write(folder, document), classes)


def read_clips(folder: Path, document: Any, classes: Any = None) -> AnnotatedSet:
    return AnnotatedSet(folder, write(folder, document), classes, clips=True)
