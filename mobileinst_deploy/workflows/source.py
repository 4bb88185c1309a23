"""The network that a pair was exported from, found again and rebuilt."""

from __future__ import annotations

from pathlib import Path

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.core.run_folder import trained_weights
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.core.zoo import zoo_ids
from mobileinst_deploy.network.loading import LoadedModel, build_loaded, load_model
from mobileinst_deploy.network.peers.catalogue import PEERS, load_peer
from mobileinst_deploy.network.user_network import load_network


def source_of(
    bundle: ExportBundle, weights: Path | None, network: str | None = None
) -> LoadedModel:
    """The network that a bundle was exported from, rebuilt at the bundle's configuration.

    Raises:
        ConfigError: It was trained, and its weights are neither given nor in the zoo.
        CheckpointError: The weights are of another model.
    """
    if isinstance(bundle.config, Needs):
        return _foreign(bundle, bundle.config, weights, network)
    if weights is None and bundle.trained:
        beside = trained_weights(bundle.folder.resolve().parent)
        if beside is not None and sha256_of(beside) == bundle.checkpoint_sha256:
            weights = beside
    if weights is None and bundle.trained:
        if bundle.model_id in zoo_ids():
            source = load_model(bundle.model_id, size=bundle.config.input_size)
            if source.checkpoint_sha256 == bundle.checkpoint_sha256:
                return source
        raise ConfigError(
            "the weights that this pair was exported from are not at hand",
            "Give them with --weights",
        )
    return build_loaded(
        bundle.model_id, bundle.config, weights, seed=bundle.seed or 0, tolerance=bundle.tolerance
    )


def _foreign(
    bundle: ExportBundle, needs: Needs, weights: Path | None, network: str | None
) -> LoadedModel:
    """A peer or a network of the user's code, once it is what the pair was exported from."""
    if network is not None:
        source = load_network(network, weights, None)
        if source.model.needs.input_size != needs.input_size:
            source = load_network(network, weights, needs.input_size)
    elif bundle.model_id in PEERS:
        source = load_peer(bundle.model_id, weights, needs.input_size)
    else:
        # Never by what the manifest says: that would run whatever code it names.
        raise ConfigError(
            f"this pair is of {shown(bundle.model_id, 80)}, code that is not mobileinst's",
            "Where you trust it, name it with --network",
        )
    if source.checkpoint_sha256 != bundle.checkpoint_sha256:
        raise ConfigError(
            "the weights that this pair was exported from are not at hand",
            "Give them with --weights",
        )
    if source.config != needs:
        raise ConfigError(
            f"{source.model_id} needs something else than the network of this pair",
            "Name the network that it was exported from",
        )
    return source
