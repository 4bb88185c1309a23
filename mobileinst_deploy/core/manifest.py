"""What a manifest of a pair may hold; :mod:`mobileinst_deploy.core.bundle` describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from mobileinst_deploy.core.config import Count, ModelConfig, Name, Seed, Tolerance
from mobileinst_deploy.core.contract import TensorSpec
from mobileinst_deploy.core.documents import Sha256, Whole
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.needs import Description, Needs

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
