"""From what the user names to a network with weights: a zoo id, a model.toml, or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mobileinst_deploy.core.config import ContextReuse, ModelConfig, Tolerance
from mobileinst_deploy.core.errors import CheckpointError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.core.needs import Description
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.provenance import Provenance
from mobileinst_deploy.core.run_folder import trained_weights
from mobileinst_deploy.core.zoo import MODEL_FILE, ZooEntry, load_model_toml
from mobileinst_deploy.media.pictures import bundled_photographs, reference_clips, user_clip
from mobileinst_deploy.network import KernelNetwork, build_model, randomize_batchnorm
from mobileinst_deploy.network.checkpoint import load_checkpoint, load_weights
from mobileinst_deploy.network.weights_file import is_weights_file


@dataclass(frozen=True)
class LoadedModel(Provenance):
    """A network in eval mode and where its weights came from.

    Attributes:
        model: In eval mode.
        note: Which weights of several in a file were taken; None where there was no choice.
    """

    model: KernelNetwork
    note: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        model: KernelNetwork,
        config: Description,
        weights: Path | None,
        *,
        seed: int,
        tolerance: Tolerance,
        note: str | None,
    ) -> LoadedModel:
        """A network as it was loaded: from a file of weights, or random ones by a seed."""
        return cls(
            model_id=name,
            config=config,
            model=model.eval(),
            trained=weights is not None,
            seed=seed if weights is None else None,
            checkpoint_sha256=None if weights is None else sha256_of(weights),
            tolerance=tolerance,
            note=note,
        )


@places(0)
def load_model(
    name: str,
    *,
    weights: Path | None = None,
    size: tuple[int, int] | None = None,
    reuse_context: ContextReuse | None = None,
) -> LoadedModel:
    """Build the network that ``name`` stands for and give it its weights.

    Args:
        name: A zoo id, a path to a model.toml, a run's folder, or a checkpoint that carries its
            configuration.
        weights: A checkpoint to use in place of the model's own weights.
        size: (height, width) in place of the configuration's.
        reuse_context: What reuse frames take over, in place of the configuration's.

    Raises:
        ConfigError: No such model, or a size or context reuse that it cannot have.
        CheckpointError: The weights are unreadable or of another model.
    """
    path = Path(name)
    if is_weights_file(path):
        if weights is not None:
            raise CheckpointError(
                f"{name} is a checkpoint already", "Give either a checkpoint or --weights, not both"
            )
        config, _ = load_checkpoint(path)
        entry = ZooEntry(path.stem, "", config, Tolerance(), 0, path, None, path.parent)
    else:
        entry = _of_run(path) or load_model_toml(name)
    if weights is None and entry.weights is None and entry.weights_sha256 is not None:
        raise CheckpointError(
            f"the trained weights of {entry.id} are missing from {entry.folder}",
            "Put them back, or give other ones with --weights",
        )
    config = replace(
        entry.config,
        input_size=size or entry.config.input_size,
        reuse_context=reuse_context or entry.config.reuse_context,
    )
    return build_loaded(
        entry.id, config, weights or entry.weights, seed=entry.seed, tolerance=entry.tolerance
    )


def weights_named(name: str | Path) -> Path:
    """The weights file that a user means by a file's path, a run's folder or a zoo id.

    Raises:
        CheckpointError: What is named has no weights.
        ConfigError: Nothing is named so.
    """
    path = Path(name)
    if path.is_file():
        return path
    found = trained_weights(path) or load_model_toml(str(name)).weights
    if found is None:
        raise CheckpointError(f"{name} has no trained weights", "Train it, or give a file")
    return found


def _of_run(folder: Path) -> ZooEntry | None:
    """A run that has been trained, as the model that its weights say they are."""
    weights = trained_weights(folder)
    if weights is None:
        return None
    described = (folder / MODEL_FILE).is_file()
    entry = load_model_toml(str(folder)) if described else None
    if entry is not None and entry.weights_sha256 is not None:
        return None  # a model of the zoo, whose weights are known by their sha256
    config, _ = load_checkpoint(weights)
    name = folder.resolve().name or "run"
    if entry is None:
        return ZooEntry(name, "", config, Tolerance(), 0, weights, None, folder)
    return replace(entry, config=config, weights=weights)


def build_loaded(
    model_id: str, config: ModelConfig, weights: Path | None, *, seed: int, tolerance: Tolerance
) -> LoadedModel:
    """A network at a configuration, with a file's weights or with the seed's random ones.

    Raises:
        CheckpointError: The weights are unreadable or of another model.
    """
    model = build_model(config, seed)
    note = None
    if weights is not None:
        note = load_weights(model, weights).note
    else:
        condition(model, config.input_size, seed)
    return LoadedModel.of(
        model_id, model, config, weights, seed=seed, tolerance=tolerance, note=note
    )


def condition(model: KernelNetwork, size: tuple[int, int], seed: int) -> None:
    """Make random weights as well conditioned as trained ones.

    Fresh BatchNorms let activations grow until every rounding error is amplified beyond use; here
    they get the statistics of photographs. Cropped and padded ones: a picture of another aspect
    than the input is half padding.
    """
    crops, keyframe = reference_clips(size)
    padded, _ = user_clip(bundled_photographs(), size)
    photographs = np.concatenate([crops[np.unique(keyframe)], padded])
    randomize_batchnorm(model, seed, torch.from_numpy(photographs).float())
