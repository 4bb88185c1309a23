"""Pictures a second of a training step on this machine's CPU: in float32 and bf16, both layouts.

    python scripts/step_speed.py --size 640x896 --rounds 3

TopFormer-Base with the paper's losses, batches of two made-up pictures, one thread. The four ways
take turns; each is told by its fastest step, in processor time.
"""

from __future__ import annotations

import argparse
import time
from itertools import product

import torch

from mobileinst_deploy.core.zoo import load_model_toml
from mobileinst_deploy.network import build_model
from mobileinst_deploy.training.config import LossConfig
from mobileinst_deploy.training.objective import Objective, Target

BATCH, INSTANCES = 2, 7


def seconds(objective: Objective, bf16: bool, images: torch.Tensor, targets: list[Target]) -> float:
    """Processor time of one step without the optimiser, s."""
    begun = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = objective(images, targets)["loss"]
    loss.backward()
    objective.zero_grad(set_to_none=True)
    return time.process_time() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="640x896", help="HEIGHTxWIDTH, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    torch.set_num_threads(1)
    config = load_model_toml("mobileinst-topformer-640").config
    ways = list(product((False, True), (False, True)))
    networks = {}
    for last, bf16 in ways:
        network = Objective(build_model(config, 0), LossConfig()).train()
        if last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        networks[last, bf16] = network
    images = torch.randint(0, 256, (BATCH, 3, height, width), dtype=torch.uint8)
    masks = torch.zeros(INSTANCES, height // 4, width // 4)
    for i, mask in enumerate(masks):
        mask[5 * i : 5 * i + 30, 5 * i : 5 * i + 30] = 1
    targets = [Target(torch.arange(INSTANCES), masks)] * BATCH
    for way in ways:
        seconds(networks[way], way[1], images, targets)
    took: dict[tuple[bool, bool], list[float]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way in ways:
            took[way].append(seconds(networks[way], way[1], images, targets))
    for (last, bf16), times in took.items():
        name = f"{'bf16' if bf16 else 'float32'}, channels {'last' if last else 'first'}"
        print(f"{name:>24}  {BATCH / min(times):5.2f} pictures a second and core")


if __name__ == "__main__":
    main()
