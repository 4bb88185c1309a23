"""A folder with the pictures of small annotation files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from annotation_files import HEIGHT, WIDTH, indexed


@pytest.fixture(params=["in memory", "by an index"])
def folder(tmp_path, request, monkeypatch) -> Path:
    """Whatever is said of annotation files holds for small ones and for large ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "by an index":
        indexed(monkeypatch)
    for name in ("a.png", "b.png", "v/0.png", "v/1.png", "v/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture = np.full((HEIGHT, WIDTH, 3), 9, np.uint8)
        picture[..., 2] = 200  # red in OpenCV's order
        cv2.imwrite(str(tmp_path / name), picture)
    return tmp_path
