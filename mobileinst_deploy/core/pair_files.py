"""The names of the files of a pair; the one place where they are written."""

from __future__ import annotations

from mobileinst_deploy.core.contract import ROLES, Role

MANIFEST = "manifest.json"
INSTRUCTIONS = "instructions.json"
#: The folder of what was measured of a pair.
RESULTS = "results"
#: The golden data.
GOLDEN = "golden.npz"
GRAPH_FILES: dict[Role, str] = {"frame": "frame.onnx", "mask_head": "mask_head.onnx"}
#: The pair as pnnx converts it for ncnn, and what it was converted from.
NCNN_FILES: dict[Role, tuple[str, str]] = {
    role: (f"{role}.ncnn.param", f"{role}.ncnn.bin") for role in ROLES
}
NCNN_RECORD = "ncnn.json"
#: What a folder may hold and still be replaced by a newer export.
BUNDLE_FILES = frozenset(
    {
        MANIFEST,
        GOLDEN,
        *GRAPH_FILES.values(),
        RESULTS,
        # Where results were kept up to version 0.1.
        "parity.json",
        "latency.json",
        INSTRUCTIONS,
        "eval.json",
        NCNN_RECORD,
        *(name for names in NCNN_FILES.values() for name in names),
    }
)
