"""From an exported pair to one whose graphs a phone runs faster."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.files import require_replaceable, require_writable
from mobileinst_deploy.core.pair_files import BUNDLE_FILES, MANIFEST
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.optimize.pair import GraphReport, optimize_pair


@dataclass(frozen=True)
class Optimized:
    """A pair that was rewritten.

    Attributes:
        pair: The new one.
        rewritten: What became of its graphs.
    """

    pair: ExportBundle
    rewritten: tuple[GraphReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "folder": str(self.pair.folder),
            "pair_id": self.pair.pair_id,
            "bytes": {role: graph.bytes for role, graph in self.pair.graphs.items()},
            "graphs": {report.role: asdict(report) for report in self.rewritten},
        }


def optimize(folder: Path, output: Path | None = None, *, progress: Progress = silent) -> Optimized:
    """Rewrite both graphs of a pair so that they execute fewer instructions for the same numbers.

    Args:
        folder: The pair's.
        output: Folder to write; None: beside the pair, with ``-optimized`` added.
        progress: Told of each graph.

    Raises:
        BundleError: The pair was optimised before, or cannot be read.
        VerificationFailed: A graph's outputs would change.
        OutputError: The folder cannot be written or holds something else.
    """
    target = derived_folder(folder, output, "optimized")
    pair, rewritten = optimize_pair(load_bundle(folder), target, progress=progress)
    return Optimized(pair, rewritten)


def derived_folder(folder: Path, output: Path | None, suffix: str) -> Path:
    """Where a pair that is made from another goes; found out before the work that it may.

    Raises:
        OutputError: It cannot be written or holds something else.
    """
    named = folder if folder.name not in ("", "..") else folder.resolve()
    target = output or named.with_name(f"{named.name}-{suffix}")
    require_replaceable(target, MANIFEST, BUNDLE_FILES)
    require_writable(target)
    return target
