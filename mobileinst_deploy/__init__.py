"""MobileInst on a phone: export, verify, measure, run, train and evaluate.

The package follows the paper "MobileInst: Video Instance Segmentation on the Mobile"
(arXiv 2303.17594). The names below are its Python API, and the command line is a client of them.
Nothing heavy is imported here: a name is loaded when it is first used.

A picture and a clip, with a pair that ``mobileinst export mobileinst-demo -o pair`` wrote:

>>> import mobileinst_deploy as mobileinst
>>> pair = mobileinst.load_pair("pair")
>>> for frame in mobileinst.track(pair, "clip"):
...     print(frame.index, len(frame.masks) == len(frame.identities) == len(frame.classes))
0 True
1 True
2 True
3 True
"""

from __future__ import annotations

import os
from importlib import import_module

from mobileinst_deploy.core.version import __version__ as __version__

# The typing module itself would be most of this import's time, during which no signal is handled.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mobileinst_deploy.core.errors import MobileInstError
    from mobileinst_deploy.workflows.bench import bench_pair as bench
    from mobileinst_deploy.workflows.evaluate import evaluate
    from mobileinst_deploy.workflows.export import export
    from mobileinst_deploy.workflows.models import models
    from mobileinst_deploy.workflows.new import new
    from mobileinst_deploy.workflows.predict import predict
    from mobileinst_deploy.workflows.track import Frame, Pair, load_pair, segment, track
    from mobileinst_deploy.workflows.train import train
    from mobileinst_deploy.workflows.verify import verify

# ONNX Runtime reads this once, when its library loads. It is set here, in the one module that
# every other one imports first, because a later place would be too late for some caller: its
# telemetry thread disturbs timings, and a measuring tool has no business calling home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = [
    "Frame",
    "MobileInstError",
    "Pair",
    "bench",
    "evaluate",
    "export",
    "load_pair",
    "models",
    "new",
    "predict",
    "segment",
    "track",
    "train",
    "verify",
]

#: Where a public name lives, and what it is called there.
_HOMES = {
    "Frame": ("workflows.track", "Frame"),
    "MobileInstError": ("core.errors", "MobileInstError"),
    "Pair": ("workflows.track", "Pair"),
    "bench": ("workflows.bench", "bench_pair"),
    "evaluate": ("workflows.evaluate", "evaluate"),
    "export": ("workflows.export", "export"),
    "load_pair": ("workflows.track", "load_pair"),
    "models": ("workflows.models", "models"),
    "new": ("workflows.new", "new"),
    "predict": ("workflows.predict", "predict"),
    "segment": ("workflows.track", "segment"),
    "track": ("workflows.track", "track"),
    "train": ("workflows.train", "train"),
    "verify": ("workflows.verify", "verify"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
