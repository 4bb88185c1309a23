"""The hand-made pair of ``tiny_pair`` as a whole exported folder, golden data and all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import tiny_pair

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.golden import Golden, save_golden
from mobileinst_deploy.core.pair_files import GOLDEN
from mobileinst_deploy.core.provenance import Provenance
from mobileinst_deploy.pair.writing import write_graphs
from mobileinst_deploy.runtimes.onnxruntime import open_session

PICTURES = 2


def export(folder: Path, *, mask_scale: float = 1.0) -> ExportBundle:
    """Write an exported pair whose reference was computed by ONNX Runtime on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tiny_pair.build(folder, mask_scale=mask_scale)
    pair_id = hashlib.sha256(str(mask_scale).encode()).hexdigest()[:16]
    save_golden(folder / GOLDEN, _golden(paths))
    of = Provenance("tiny", tiny_pair.CONFIG, False, 7, None, Tolerance())
    graphs = {role: onnx.load(paths[role]) for role in ROLES}
    write_graphs(folder, of, graphs, pair_id=pair_id, specs=tiny_pair.SPECS, tools={})
    return load_bundle(folder)


def _golden(paths: dict[Role, Path]) -> Golden:
    frame, head = (open_session(paths[role].read_bytes()) for role in ROLES)
    images = [tiny_pair.picture(seed) for seed in range(PICTURES)]
    names = [t.name for t in tiny_pair.SPECS["frame"].outputs]
    runs = [dict(zip(names, frame.run(names, {"image": i}), strict=True)) for i in images]
    masks = [head.run(None, {"image": i, "kernels": runs[0]["kernels"]})[0] for i in images]
    outputs = {name: np.nan_to_num(np.concatenate([run[name] for run in runs])) for name in names}
    return Golden(
        images=np.concatenate(images).astype(np.uint8),
        keyframe=np.zeros(PICTURES, np.int64),
        frame=outputs,
        mask_logits=np.nan_to_num(np.concatenate(masks)),
    )
