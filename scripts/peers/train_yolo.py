"""Train a YOLO segmentation network from random weights on photographs in COCO's form, on one core.

Run by the python of scripts/peers/setup. It learns from what this project's models learn from: the
same pictures, the same instances, and as many minutes of one core. The learning rate falls over a
number of epochs that must be known before: one epoch tells how long one takes. The processor
minutes spent are in FOLDER/minutes.json after each epoch. Started again, it goes on from there.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")

import cv2
import numpy as np
import torch
import yaml
from ultralytics import YOLO
from ultralytics.data.converter import merge_multi_segment

from mobileinst_deploy.data.annotated import AnnotatedSet


def write_dataset(folder: Path, images: Path, annotations: Path) -> Path:
    """Pictures and outlines in YOLO's layout; regions of many objects are left out, as here."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    data = AnnotatedSet(images, annotations)
    for i, medium in enumerate(data.media):
        file = Path(medium.files[0])
        (folder / "images" / file.name).symlink_to((images / file).resolve())
        sample = data.sample(i)
        lines = [
            " ".join([str(label), *(f"{v:.5f}" for v in outline(mask))])
            for label, mask, crowd in zip(sample.labels, sample.masks, sample.crowd, strict=True)
            if not crowd
        ]
        (folder / "labels" / f"{file.stem}.txt").write_text("\n".join(lines))
    described = folder / "data.yaml"
    # Nothing is chosen on pictures held out: they are the training ones.
    where = {"path": str(folder.resolve()), "train": "images", "val": "images"}
    described.write_text(yaml.safe_dump({**where, "names": list(data.classes)}))
    return described


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline of all parts of a mask as one polygon, in shares of the picture."""
    parts, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    flat = [part.reshape(-1).tolist() for part in parts if len(part) >= 3]
    joined = np.concatenate(merge_multi_segment(flat)) if len(flat) > 1 else np.array(flat)
    height, width = mask.shape
    return (joined.reshape(-1, 2) / (width, height)).reshape(-1)


def main() -> None:
    """Write the data set and train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the run; one that was begun goes on")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--network", default="yolo11n-seg.yaml", help="one that ultralytics knows")
    parser.add_argument("--side", type=int, default=384, help="of the square picture, pixels")
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    minutes, last = given.folder / "minutes.json", given.folder / "run" / "weights" / "last.pt"
    before = json.loads(minutes.read_text())["minutes"] if last.exists() else 0.0

    def tell(trainer: object) -> None:
        spent = {"epoch": trainer.epoch + 1, "minutes": before + time.process_time() / 60}
        minutes.write_text(json.dumps(spent))

    if last.exists():
        model = YOLO(last)
        model.add_callback("on_model_save", tell)
        model.train(resume=True)
        return
    described = write_dataset(given.folder / "data", given.images, given.annotations)
    model = YOLO(given.network)
    model.add_callback("on_model_save", tell)
    # No worker process: then all of the time is this one's.
    model.train(
        data=str(described), epochs=given.epochs, imgsz=given.side, batch=given.batch,
        device="cpu", workers=0, val=False, plots=False, pretrained=False,
        project=str(given.folder.resolve()), name="run", exist_ok=True, seed=0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
