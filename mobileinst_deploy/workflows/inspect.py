"""What is in a pair or in an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.pair.onnx_file import GraphSummary, summarise


@dataclass(frozen=True)
class Inspected:
    """What was found.

    Attributes:
        pair: The pair, or None when one file was looked at.
        graphs: By role, or by the file's name.
    """

    pair: ExportBundle | None
    graphs: Mapping[str, GraphSummary]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: asdict(summary) for name, summary in self.graphs.items()}


def inspect(path: Path) -> Inspected:
    """Describe both graphs of a pair, or one ONNX file.

    Args:
        path: An exported pair's folder, or an ONNX file.

    Raises:
        BundleError: It is neither.
        InputError: It cannot be read.
    """
    if not path.is_dir():
        return Inspected(None, {path.name: summarise(path, {})})
    pair = load_bundle(path)
    free = {"n": pair.config.num_queries}
    graphs = {str(role): summarise(graph.onnx, free) for role, graph in pair.graphs.items()}
    return Inspected(pair, graphs)
