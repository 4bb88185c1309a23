"""Write a run's weights as the zoo keeps them: float16, half the size. Prints the sha256.

Of several files of one run it writes the mean.
"""

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("weights", type=Path, nargs="+", help="model.safetensors of a run")
parser.add_argument("output", type=Path)
given = parser.parse_args()
sums: dict[str, torch.Tensor] = {}
for path in given.weights:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118
            sums[name] = sums.get(name, 0) + file.get_tensor(name).float()
tensors = {name: (total / len(given.weights)).half() for name, total in sums.items()}
for name, tensor in tensors.items():
    if not bool(torch.isfinite(tensor).all()):
        raise SystemExit(f"{name} does not fit float16")
save_file(tensors, given.output, metadata)
print(hashlib.sha256(given.output.read_bytes()).hexdigest())
