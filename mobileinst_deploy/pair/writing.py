"""Two graphs and their provenance become a pair's folder; export and every rewriting end here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from mobileinst_deploy.core.contract import ROLES, GraphSpec, Role
from mobileinst_deploy.core.manifest import write_manifest
from mobileinst_deploy.core.pair_files import GRAPH_FILES
from mobileinst_deploy.core.provenance import Provenance
from mobileinst_deploy.pair.onnx_file import opset_of, set_metadata


def write_graphs(
    folder: Path,
    of: Provenance,
    graphs: Mapping[Role, onnx.ModelProto],
    *,
    pair_id: str,
    specs: Mapping[Role, GraphSpec],
    tools: Mapping[str, str],
    optimized: tuple[str, ...] = (),
) -> None:
    """Write both graphs, their own metadata and the manifest beside the golden data.

    Args:
        folder: Holds the golden data already.
        of: Where the network comes from.
        graphs: By role; their metadata is set here.
        pair_id: 16 hex digits.
        specs: The graphs' signatures.
        tools: Versions of what made them.
        optimized: Names of what was done to the graphs since the export, in order.

    Raises:
        OSError: The folder cannot be written.
    """
    opset = opset_of(graphs["frame"])
    versions = " ".join(f"{name}=={release}" for name, release in tools.items())
    for role in ROLES:
        values = {**of.metadata(role, pair_id, opset), "tools": versions}
        if optimized:
            values["optimized"] = " ".join(optimized)
        set_metadata(graphs[role], values)
        onnx.save(graphs[role], folder / GRAPH_FILES[role])
    write_manifest(
        folder,
        of,
        pair_id=pair_id,
        optimized=optimized,
        specs=specs,
        opset=opset,
        tools=tools,
    )
