"""A first run of ncnn networks in a process of their own: what crashes it crashes nothing else.

ncnn trusts the networks that it is given. One that it was converted into wrongly can end the whole
process by a signal, and then nobody is told why. So a process of its own goes first.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.programs import run_program
from mobileinst_deploy.core.scratch import scratch_folder

_LIMIT_S = 900.0
_TASK = "task.json"


def rehearse(bundle: ExportBundle) -> None:
    """Load and run both graphs once in another process.

    Args:
        bundle: From :func:`mobileinst_deploy.runtimes.ncnn.convert.as_ncnn`.

    Raises:
        BundleError: ncnn crashes, or does not come to an end.
    """
    n = bundle.config.num_queries
    for role, graph in bundle.graphs.items():
        with scratch_folder() as folder:
            shapes = {
                t.name: [n if isinstance(side, str) else side for side in t.shape[1:]]
                for t in graph.spec.inputs
            }
            task = {
                "files": [str(file.write(folder)) for file in graph.files],
                "inputs": shapes,
                "outputs": [t.name for t in graph.spec.outputs],
            }
            (folder / _TASK).write_text(json.dumps(task), encoding="utf-8")
            command = [sys.executable, "-m", __name__, str(folder / _TASK)]
            done = run_program(command, limit_s=_LIMIT_S)
        # A network that it refuses is told by whoever loads it next, here.
        if done.code is not None and done.code >= 0:
            continue
        why = done.fault if done.code is None else f"is ended by {signal.Signals(-done.code).name}"
        raise BundleError(
            f"ncnn {why} in the {role} graph as pnnx converted it",
            "Use --runtime onnxruntime, or export the network again with other operators",
        )


def _run(task: dict[str, Any]) -> None:
    ncnn = importlib.import_module("ncnn")
    network = ncnn.Net()
    network.opt.num_threads = 1
    network.opt.use_packing_layout = False
    param, weights = task["files"]
    if network.load_param(param) != 0 or network.load_model(weights) != 0:
        return
    extractor = network.create_extractor()
    given = {name: np.zeros(shape, np.float32) for name, shape in task["inputs"].items()}
    for name, array in given.items():
        extractor.input(name, ncnn.Mat(array))
    for name in task["outputs"]:
        extractor.extract(name)


if __name__ == "__main__":
    _run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
