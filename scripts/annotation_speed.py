"""Time and memory to open an annotation file as large as COCO's, made of a small one.

    python scripts/annotation_speed.py IMAGES ANNOTATIONS --times 303

Writes the small file's pictures and annotations over and over, under new numbers. Opens that for
the first time, which makes its index; then again in two processes at once, which map the index and
read some pictures each. A process's share of memory (PSS) counts a page that n processes have in
common as an nth in each; what a process has before it opens the file is told apart.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from mobileinst_deploy.data.annotated import AnnotatedSet

#: Pictures that each process reads, over all of the file.
READ = 200


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


def opened(images: Path, large: Path, together: Any, answer: Any) -> None:
    """Open the file, read some pictures, and tell what that took once all others have done so."""
    before, begun = share(), time.process_time()
    data = AnnotatedSet(images, large)
    spent = time.process_time() - begun
    for i in range(0, len(data), max(len(data) // READ, 1)):
        data.sample(i)
    together.wait()
    after = share()
    together.wait()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    objects = int(data.catalogue.index.columns["seen"].sum())
    answer.put((objects, len(data), spent, peak, before, after))


def share() -> float:
    """This process's share of memory, MiB."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    pss = next(line for line in text.splitlines() if line.startswith("Pss:"))
    return int(pss.split()[1]) / 1024


def main() -> None:
    """Every process is a fresh one, so that none has another's memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--times", type=int, default=303)
    given = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        large = Path(folder) / "large.json"
        writer = processes.Process(target=enlarge, args=(given.annotations, large, given.times))
        writer.start()
        writer.join()
        print(f"{large.stat().st_size >> 20} MiB of JSON")
        for name, count in (("first", 1), ("then", 1), ("both", 2)):
            together, answer = processes.Barrier(count), processes.Queue()
            given_all = (given.images, large, together, answer)
            each = [processes.Process(target=opened, args=given_all) for _ in range(count)]
            for process in each:
                process.start()
            for objects, pictures, spent, peak, before, after in [answer.get() for _ in each]:
                print(
                    f"{name:>5}  {objects:,} annotations of {pictures:,} pictures: {spent:.2f} s "
                    f"of one core, peak {peak:.0f} MiB, share {before:.0f} MiB before, "
                    f"{after:.0f} MiB after"
                )
            for process in each:
                process.join()
        index = next((Path(folder) / "mobileinst" / "annotations").glob("*"))
        print(f"{index.stat().st_size >> 20} MiB of index")


if __name__ == "__main__":
    main()
