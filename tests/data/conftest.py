"""A folder with the pictures of small annotation files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from annotation_files import HEIGHT, WIDTH


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.png", "v/0.png", "v/1.png", "v/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture = np.full((HEIGHT, WIDTH, 3), 9, np.uint8)
        picture[..., 2] = 200  # red in OpenCV's order
        cv2.imwrite(str(tmp_path / name), picture)
    return tmp_path
