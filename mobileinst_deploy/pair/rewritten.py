"""A pair made from another pair: other graphs, the same model, reference and signatures."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import onnx

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.files import canonical_sha256, folder_atomically
from mobileinst_deploy.core.pair_files import BUNDLE_FILES, GOLDEN, MANIFEST
from mobileinst_deploy.core.version import __version__
from mobileinst_deploy.pair.writing import write_graphs


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
    specs = source.specs
    with folder_atomically(folder, MANIFEST, BUNDLE_FILES) as temporary:
        source.golden.write(temporary, GOLDEN)
        write_graphs(
            temporary, source, graphs, pair_id=pair_id, specs=specs, tools=tools, optimized=done
        )
    return load_bundle(folder)


def _digests(source: ExportBundle) -> list[str]:
    return [source.graphs[role].sha256 for role in ROLES]
