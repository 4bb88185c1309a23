#!/usr/bin/env python3
"""How far a network in float32 is from the same network in float64, on six photographs.

scripts/own_rounding.py ID [--size 128x128]      a peer; its weights are random

What the network's own rounding does to its outputs, no runtime can do better. The photographs are
those that come with scikit-image, each as it is, turned to the left, and upside down.
"""

from __future__ import annotations

import argparse
import copy

import cv2
import numpy as np
import torch
from skimage import data

from mobileinst_deploy.core.config import parse_size
from mobileinst_deploy.network.peers.catalogue import PEERS, load_peer

OUTPUTS = ("class_logits", "objectness_logits", "kernels", "mask_logits")


def photographs(size: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """Each with its name: height x width x 3, RGB."""
    found = []
    for name in ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins"):
        picture = getattr(data, name)()
        colour = picture if picture.ndim == 3 else np.dstack([picture] * 3)
        small = cv2.resize(colour, size[::-1])
        found += [(name, small), (f"{name}, mirrored", small[:, ::-1])]
        found += [(f"{name}, upside down", small[::-1])]
    return found


def main() -> None:
    """Print a line for each photograph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=sorted(PEERS))
    parser.add_argument("--size", default="128x128", type=parse_size)
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_peer(given.network, None, given.size)
    single, double = loaded.model.eval(), copy.deepcopy(loaded.model).double().eval()
    mean, std = np.array(loaded.config.mean), np.array(loaded.config.std)
    print("largest difference as a share of the output's largest value:", *OUTPUTS, sep="\t")
    for name, picture in photographs(given.size):
        image = torch.from_numpy(((picture - mean) / std).transpose(2, 0, 1)[None].copy())
        with torch.no_grad():
            got, want = single(image.float()), double(image.double())
        shares = [
            f"{float((a.double() - b).abs().max() / b.abs().max()):.0e}"
            for a, b in zip(got[: len(OUTPUTS)], want[: len(OUTPUTS)], strict=True)
        ]
        print(name, *shares, sep="\t", flush=True)


if __name__ == "__main__":
    main()
