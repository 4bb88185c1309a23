"""Write a run's weights as the zoo keeps them: float16, half the size. Prints the sha256."""

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("weights", type=Path, help="model.safetensors of a run")
parser.add_argument("output", type=Path)
given = parser.parse_args()
with safe_open(given.weights, framework="pt") as file:
    tensors = {name: file.get_tensor(name).half() for name in file.keys()}  # noqa: SIM118
    metadata = file.metadata()
for name, tensor in tensors.items():
    if not bool(torch.isfinite(tensor).all()):
        raise SystemExit(f"{name} does not fit float16")
save_file(tensors, given.output, metadata)
print(hashlib.sha256(given.output.read_bytes()).hexdigest())
