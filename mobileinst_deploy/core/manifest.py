"""What a manifest of a pair may hold, and how it is written.

:mod:`mobileinst_deploy.core.bundle` describes and reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from mobileinst_deploy.core.config import Count, ModelConfig, Name, Seed, Tolerance
from mobileinst_deploy.core.content import read_content
from mobileinst_deploy.core.contract import ROLES, GraphSpec, Role, TensorSpec
from mobileinst_deploy.core.documents import Sha256, Whole
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.files import canonical_sha256, write_json
from mobileinst_deploy.core.needs import Description, Needs
from mobileinst_deploy.core.pair_files import GOLDEN, GRAPH_FILES, MANIFEST
from mobileinst_deploy.core.picture_rules import picture_rules
from mobileinst_deploy.core.provenance import Provenance

SCHEMA = 1
Short = Annotated[str, Meta(max_length=1000)]


@dataclass(frozen=True)
class ManifestModel:
    """The model that a pair was exported from; a trained one has a checkpoint, another a seed."""

    id: Name
    trained: bool
    seed: Seed | None
    checkpoint_sha256: Sha256 | None
    config: ModelConfig | None = None
    needs: Needs | None = None

    def __post_init__(self) -> None:
        origin = "checkpoint_sha256" if self.trained else "seed"
        if getattr(self, origin) is None:
            trained = "trained" if self.trained else "random"
            raise BundleError(f"model.{origin} is null, with {trained} weights", "Export it again")
        if (self.config is None) == (self.needs is None):
            raise BundleError(
                "model has not either a config or needs, of which every network has one",
                "Export it again",
            )

    @property
    def description(self) -> Description:
        """MobileInst's configuration, or what another network needs."""
        if self.config is not None:
            return self.config
        assert self.needs is not None  # noqa: S101  # checked when it was made
        return self.needs


@dataclass(frozen=True)
class ManifestFile:
    """A file of the pair."""

    file: Annotated[str, Meta(min_length=1, max_length=60)]
    sha256: Sha256
    bytes: Whole


@dataclass(frozen=True)
class ManifestGraph(ManifestFile):
    """A graph of the pair and its signature."""

    opset: Annotated[int, Meta(ge=1, le=1000)]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ManifestGraphs:
    """Both graphs."""

    frame: ManifestGraph
    mask_head: ManifestGraph


@dataclass(frozen=True)
class Manifest:
    """A whole manifest."""

    schema: Literal[1]
    pair_id: Short
    digest: Sha256
    model: ManifestModel
    stride: Count
    optimized: tuple[Short, ...]
    tolerance: Tolerance
    graphs: ManifestGraphs
    golden: ManifestFile
    tools: dict[str, Short]
    pictures: dict[str, Any] | None = None


def write_manifest(
    folder: Path,
    of: Provenance,
    *,
    pair_id: str,
    optimized: tuple[str, ...],
    specs: Mapping[Role, GraphSpec],
    opset: int,
    tools: Mapping[str, str],
) -> None:
    """Write ``manifest.json`` for the graphs and golden data that already lie in ``folder``.

    Raises:
        OutputError: The folder cannot be written.
    """
    config = of.config
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "pair_id": pair_id,
        "model": {
            "id": of.model_id,
            "config" if isinstance(config, ModelConfig) else "needs": config.to_dict(),
            "trained": of.trained,
            "seed": of.seed,
            "checkpoint_sha256": of.checkpoint_sha256,
        },
        "stride": config.mask_stride,
        "pictures": picture_rules(config),
        "optimized": list(optimized),
        "tolerance": asdict(of.tolerance),
        "graphs": {
            role: {
                **_file_entry(folder / GRAPH_FILES[role]),
                "opset": opset,
                "inputs": [_tensor_entry(t) for t in specs[role].inputs],
                "outputs": [_tensor_entry(t) for t in specs[role].outputs],
            }
            for role in ROLES
        },
        "golden": _file_entry(folder / GOLDEN),
        "tools": dict(tools),
    }
    document["digest"] = canonical_sha256(document)
    write_json(folder / MANIFEST, document)


def _tensor_entry(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _file_entry(path: Path) -> dict[str, Any]:
    content = read_content(path)
    return {"file": content.name, "sha256": content.sha256, "bytes": content.bytes}
