"""Time export and verify beside a bare ``torch.onnx.export`` of the same two graphs.

``python scripts/measure_export.py [MODEL] [ROUNDS]``. The three are interleaved in one process and
compared by median CPU time, as well as wall time, because other work on the machine disturbs the
latter. Then both commands run as processes of their own, for their peak memory. Prints JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from mobileinst_deploy.core.bundle import load_bundle, load_golden
from mobileinst_deploy.network import MobileInst
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner


class MaskHead(torch.nn.Module):
    """The mask head as a module of its own, as whoever exports by hand would write it."""

    def __init__(self, model: MobileInst) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """See :meth:`MobileInst.mask_head`."""
        return self.model.mask_head(image, kernels)


def bare_export(model: MobileInst, folder: Path) -> None:
    """Both graphs by PyTorch's exporter and nothing else: no simplification, no reference."""
    image = torch.zeros(1, 3, *model.config.input_size)
    kernels = torch.zeros(1, model.config.num_queries, model.config.width)
    settings = {"dynamo": False, "opset_version": 17}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (image,), folder / "frame.onnx", **settings)
        torch.onnx.export(
            MaskHead(model).eval(),
            (image, kernels),
            folder / "mask_head.onnx",
            input_names=["image", "kernels"],
            dynamic_axes={"kernels": {1: "n"}},
            **settings,
        )


def verify(folder: Path) -> None:
    """The whole ladder, from the files."""
    bundle = load_bundle(folder)
    verify_bundle(bundle, CpuRunner(bundle), load_golden(bundle), reference="PyTorch")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds of one run."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def command(*arguments: str) -> dict[str, float]:
    """Wall and CPU seconds and peak resident memory of a ``mobileinst`` command."""
    # The process reads its own peak: what its parent is told counts the memory at the fork.
    code = (
        "import atexit; status = open('/proc/self/status');"
        "atexit.register(lambda: print(status.read().split('VmHWM:')[1].split()[0]));"
        "from mobileinst_deploy.cli import main; main()"
    )
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    return {
        "exit_code": done.returncode,
        "wall_s": round(time.perf_counter() - start, 2),
        "cpu_s": round(cpu - before.children_user - before.children_system, 2),
        "peak_mb": round(int(done.stdout) / 1024),
    }


def main() -> None:
    """Measure and print."""
    name = sys.argv[1] if len(sys.argv) > 1 else "mobileinst-topformer-vis"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    source = load_model(name)
    samples: dict[str, list[tuple[float, float]]] = {"bare": [], "export": [], "verify": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder, plain = Path(temporary) / "pair", Path(temporary) / "bare"
        plain.mkdir()
        # The first run of each loads code and warms caches, and does not count.
        for counts in [False] + [True] * rounds:
            for label, work in (
                ("bare", lambda: bare_export(source.model, plain)),
                ("export", lambda: export_model(source, folder)),
                ("verify", lambda: verify(folder)),
            ):
                sample = timed(work)
                if counts:
                    samples[label].append(sample)
        median = {
            label: {
                "wall_s": round(statistics.median(wall for wall, _ in runs), 2),
                "cpu_s": round(statistics.median(cpu for _, cpu in runs), 2),
            }
            for label, runs in samples.items()
        }
        report = {
            "model": name,
            "rounds": rounds,
            "torch_threads": torch.get_num_threads(),
            "median": median,
            "export_over_bare": {
                kind: round(median["export"][kind] / median["bare"][kind], 2)
                for kind in ("wall_s", "cpu_s")
            },
            "command_export": command("export", name, "-o", str(folder), "--no-verify"),
            "command_verify": command("verify", str(folder)),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
