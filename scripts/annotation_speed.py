"""Time and memory to open an annotation file as large as COCO's, made of a small one.

    python scripts/annotation_speed.py IMAGES ANNOTATIONS --times 303

Writes the small file's pictures and annotations over and over, under new numbers, and opens that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from mobileinst_deploy.data.annotated import AnnotatedSet


def enlarge(small: Path, large: Path, times: int) -> None:
    """Write a file in COCO's form with everything in another one several times."""
    document: dict[str, Any] = msgspec.json.decode(small.read_bytes())
    pictures, annotations = document["images"], document["annotations"]
    step = 1 + max(entry["id"] for entry in (*pictures, *annotations))

    def entries(of: list[dict[str, Any]], *numbers: str) -> bytes:
        return b",".join(
            msgspec.json.encode({**entry, **{name: entry[name] + k * step for name in numbers}})
            for k in range(times)
            for entry in of
        )

    with large.open("wb") as file:
        file.write(b'{"categories":' + msgspec.json.encode(document["categories"]))
        file.write(b',"images":[' + entries(pictures, "id"))
        file.write(b'],"annotations":[' + entries(annotations, "id", "image_id") + b"]}")


def main() -> None:
    """Write the file in a process of its own, open it in this one, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--times", type=int, default=303)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.json"
        # Its memory is not to count.
        writer = multiprocessing.get_context("spawn").Process(
            target=enlarge, args=(given.annotations, large, given.times)
        )
        writer.start()
        writer.join()
        begun = time.process_time()
        opened = AnnotatedSet(given.images, large)
        spent = time.process_time() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        objects = sum(len(medium.objects) for medium in opened.media)
        print(
            f"{objects:,} annotations of {len(opened):,} pictures, "
            f"{large.stat().st_size >> 20} MiB: {spent:.1f} s of one core, peak {peak:.0f} MiB"
        )


if __name__ == "__main__":
    main()
