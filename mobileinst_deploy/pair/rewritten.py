"""A pair made from another pair: other graphs, the same model, reference and signatures."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import onnx

from mobileinst_deploy import __version__
from mobileinst_deploy.core.bundle import (
    BUNDLE_FILES,
    GRAPH_FILES,
    MANIFEST,
    ExportBundle,
    graph_metadata,
    load_bundle,
    write_manifest,
)
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.files import canonical_sha256, folder_atomically
from mobileinst_deploy.core.golden import GOLDEN
from mobileinst_deploy.pair.onnx_file import opset_of, set_metadata


def write_derived(
    source: ExportBundle,
    folder: Path,
    graphs: Mapping[Role, onnx.ModelProto],
    steps: tuple[str, ...],
) -> ExportBundle:
    """Write a pair whose graphs were rewritten, all or nothing.

    Args:
        source: The pair that they were made from; its golden data is carried over.
        folder: Made, or replaced when it holds an older pair and nothing else; may be the source's.
        graphs: The new graphs, of the same signatures and operator set; their metadata is set here.
        steps: Names of what was done to them, in order, after what was done to the source.

    Raises:
        OutputError: The folder cannot be written or holds something else.
    """
    tools = {
        **source.tools,
        "mobileinst": __version__,
        "onnx": version("onnx"),
        "onnxruntime": version("onnxruntime"),
    }
    done = (*source.optimized, *steps)
    pair_id = canonical_sha256(
        {"pair": source.pair_id, "files": _digests(source), "steps": done, "tools": tools}
    )[:16]
    opset = opset_of(graphs["frame"])
    versions = " ".join(f"{name}=={release}" for name, release in tools.items())
    with folder_atomically(folder, MANIFEST, BUNDLE_FILES) as temporary:
        source.golden.write(temporary, GOLDEN)
        for role in ROLES:
            carried = graph_metadata(
                role,
                pair_id=pair_id,
                model_id=source.model_id,
                config=source.config,
                seed=source.seed,
                checkpoint_sha256=source.checkpoint_sha256,
                opset=opset,
            )
            set_metadata(graphs[role], {**carried, "tools": versions, "optimized": " ".join(done)})
            onnx.save(graphs[role], temporary / GRAPH_FILES[role])
        write_manifest(
            temporary,
            pair_id=pair_id,
            model_id=source.model_id,
            config=source.config,
            trained=source.trained,
            seed=source.seed,
            checkpoint_sha256=source.checkpoint_sha256,
            tolerance=source.tolerance,
            optimized=done,
            specs={role: source.graphs[role].spec for role in ROLES},
            opset=opset,
            tools=tools,
        )
    return load_bundle(folder)


def _digests(source: ExportBundle) -> list[str]:
    return [source.graphs[role].sha256 for role in ROLES]
