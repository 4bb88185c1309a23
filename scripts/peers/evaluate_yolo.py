"""Mask AP of a YOLO segmentation network by this project's evaluator, and its figures as JSON.

Run by the python of scripts/peers/setup. The weights are ultralytics' own file (.pt), or a TFLite
file of YOLOv8's outputs; one that knows COCO's 80 classes is asked for the data's only.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")

import cv2
import numpy as np
import torch

from mobileinst_deploy.core.masks import encode
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.measure.average_precision import (
    PICTURE_METRICS,
    AveragePrecision,
    Candidate,
    Truth,
)

# COCO's numbers, from 0, of the classes that photographs of people and animals have.
COCO = {"person": 0, "cat": 15, "dog": 16, "horse": 17, "sheep": 18, "cow": 19}
LOWEST, NMS_IOU, MOST, MOST_BEFORE_NMS = 0.001, 0.7, 100, 3000

Search = Callable[[np.ndarray], list[tuple[np.ndarray, int, float]]]


def pytorch(weights: Path, side: int) -> Search:
    """Ultralytics' own prediction, masks at the picture's resolution."""
    from ultralytics import YOLO

    model = YOLO(str(weights))

    def search(image: np.ndarray) -> list[tuple[np.ndarray, int, float]]:
        (result,) = model.predict(
            image[..., ::-1], imgsz=side, conf=LOWEST, iou=NMS_IOU, max_det=MOST,
            retina_masks=True, device="cpu", verbose=False,
        )  # fmt: skip
        if result.masks is None:
            return []
        masks = result.masks.data.numpy() > 0.5
        classes, scores = result.boxes.cls.int().tolist(), result.boxes.conf.tolist()
        return list(zip(masks, classes, scores, strict=True))

    return search


def tflite(weights: Path, labels: list[int]) -> Search:
    """The graph's raw outputs, decoded here: boxes, scores, coefficients of prototype masks."""
    from ai_edge_litert.interpreter import Interpreter

    graph = Interpreter(str(weights), num_threads=1)
    graph.allocate_tensors()
    (given,) = graph.get_input_details()
    side = int(given["shape"][-1])

    def search(image: np.ndarray) -> list[tuple[np.ndarray, int, float]]:
        height, width = image.shape[:2]
        scale = side / max(height, width)
        h, w = round(height * scale), round(width * scale)
        top, left = (side - h) // 2, (side - w) // 2
        padded = np.full((side, side, 3), 114, np.uint8)
        padded[top : top + h, left : left + w] = cv2.resize(image, (w, h))
        graph.set_tensor(given["index"], (padded.transpose(2, 0, 1)[None] / 255).astype(np.float32))
        graph.invoke()
        rows, prototypes = (graph.get_tensor(o["index"])[0] for o in graph.get_output_details())
        scores, boxes, weights_ = rows[4:84][labels], rows[:4].T, rows[84:].T
        if boxes.max() <= 2:  # some converters leave boxes as shares of the side
            boxes = boxes * side
        corners = np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]])
        label, place = np.nonzero(scores > LOWEST)
        strong = np.argsort(-scores[label, place])[:MOST_BEFORE_NMS]
        label, place = label[strong], place[strong]
        kept = cv2.dnn.NMSBoxesBatched(
            corners[place].tolist(), scores[label, place].tolist(), label.tolist(), LOWEST, NMS_IOU
        )
        found = []
        for i in np.asarray(kept, int)[:MOST]:
            x, y, bw, bh = corners[place[i]]
            logits = np.tensordot(weights_[place[i]], prototypes, 1)
            fitted = cv2.resize(logits, (side, side))[top : top + h, left : left + w]
            mask = cv2.resize(fitted, (width, height)) > 0
            inside = np.zeros_like(mask)
            x0, y0 = (max(round((v - o) / scale), 0) for v, o in ((x, left), (y, top)))
            x1, y1 = (max(round((v - o) / scale), 0) for v, o in ((x + bw, left), (y + bh, top)))
            inside[y0:y1, x0:x1] = True
            found.append((mask & inside, int(label[i]), float(scores[label[i], place[i]])))
        return found

    return search


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--side", type=int, default=384, help="of the square picture; .pt only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = AnnotatedSet(given.images, given.annotations)
    if given.weights.suffix == ".tflite":
        search = tflite(given.weights, [COCO[name] for name in data.classes])
    else:
        search = pytorch(given.weights, given.side)
    precision = AveragePrecision(data.classes)
    for i in range(len(data)):
        sample = data.sample(i)
        truth = [
            Truth(int(label), encode(mask), float(mask.sum()), crowd=bool(crowd))
            for label, mask, crowd in zip(sample.labels, sample.masks, sample.crowd, strict=True)
        ]
        found = [
            Candidate(encode(mask), ((label, score),))
            for mask, label, score in search(sample.image)
            if mask.any()
        ]
        precision.add(sample.image.shape[:2], truth, found)
    figures = {"pictures": len(data), **precision.metrics(PICTURE_METRICS)}
    print(json.dumps({**figures, "per_class": precision.per_class()}))


if __name__ == "__main__":
    main()
