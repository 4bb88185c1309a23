#!/usr/bin/env python3
"""Write YOLO's segmentation networks as ONNX graphs, for scripts/network_costs.py to measure.

    python -m venv YOLO && YOLO/bin/pip install ultralytics onnx
    YOLO/bin/python scripts/yolo_graphs.py FOLDER [--size 384x640]

It has an environment of its own, as ultralytics is AGPL. The weights are random: nothing is
fetched, and what a graph costs does not depend on them. Left out, as in ultralytics' own ONNX
files, are the suppression of duplicates where a network needs it, the product of coefficients and
prototypes that makes masks, and tracks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

NETWORKS = ("yolo11n-seg", "yolov8n-seg", "yolo26n-seg")


def load(name: str) -> Any:
    """A network from ultralytics' own description, its normalisations folded, ready to export."""
    from ultralytics import YOLO  # type: ignore[import-not-found]

    network = YOLO(f"{name}.yaml").model.float().eval().fuse()
    for module in network.modules():
        if hasattr(module, "export"):
            module.export, module.format = True, "onnx"
    return network


def main() -> None:
    """Export each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", default="384x640", help="default: %(default)s")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    height, width = map(int, options.size.split("x"))
    torch.manual_seed(0)
    for name in NETWORKS:
        network = load(name)
        picture = torch.zeros(1, 3, height, width)
        with torch.no_grad():
            network(picture)  # makes the anchors of this size, which then are constants
        target = options.folder / f"{name}.onnx"
        torch.onnx.export(
            network, (picture,), str(target), dynamo=False, opset_version=17, input_names=["images"]
        )
        print(target)


if __name__ == "__main__":
    main()
