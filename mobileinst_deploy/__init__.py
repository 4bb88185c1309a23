"""MobileInst on a phone: export, verify, measure, run, train and evaluate.

The package follows the paper "MobileInst: Video Instance Segmentation on the Mobile"
(arXiv 2303.17594). Nothing heavy is imported here: ``mobileinst --help`` must answer at once.
"""

import os

# ONNX Runtime reads this once, when its library loads. It is set here, in the one module that
# every other one imports first, because a later place would be too late for some caller: its
# telemetry thread disturbs timings, and a measuring tool has no business calling home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.2.0"
