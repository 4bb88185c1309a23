"""What is in the zoo, and what each model costs.

Counting costs seconds and PyTorch, so that the counts lie beside the zoo in ``costs.json``;
``make docs`` writes it, and a test counts again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.zoo import load_model_toml, zoo_folder, zoo_ids

COSTS_FILE = "costs.json"


@dataclass(frozen=True)
class ZooRow:
    """One model.

    Attributes:
        id: Its name on the command line.
        backbone: Which.
        input_size: (height, width) in pixels.
        classes: How many it knows.
        parameters: Number of weights.
        macs: Multiply-accumulates of its frame graph.
        trained_weights: Whether it has been trained.
        summary: One line for people.
    """

    id: str
    backbone: str
    input_size: tuple[int, int]
    classes: int
    parameters: int
    macs: int
    trained_weights: bool
    summary: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def models() -> tuple[ZooRow, ...]:
    """Every model of the zoo, by id.

    Raises:
        ConfigError: The zoo is missing from this installation, or a model of it is broken.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> demo = next(model for model in mobileinst.models() if model.id == "mobileinst-demo")
        >>> demo.input_size, demo.trained_weights
        ((192, 320), True)
    """
    try:
        costs = json.loads((zoo_folder() / COSTS_FILE).read_bytes())
    except (OSError, ValueError):
        costs = {}
    rows = []
    for model_id in zoo_ids():
        entry = load_model_toml(model_id)
        cost = costs.get(model_id) or count_cost(entry.config)
        rows.append(
            ZooRow(
                id=entry.id,
                backbone=entry.config.backbone,
                input_size=entry.config.input_size,
                classes=entry.config.num_classes,
                parameters=cost["parameters"],
                macs=cost["macs"],
                trained_weights=entry.weights is not None,
                summary=entry.summary,
            )
        )
    return tuple(rows)


@dataclass(frozen=True)
class PeerRow:
    """One network of the paper's Tables 1 and 2.

    Attributes:
        id: Its name on the command line.
        input_size: (height, width) in pixels.
        parameters: Number of weights, also of those that only training reads.
        macs: Multiply-accumulates of its frame graph.
        reuse_macs: Of its mask-head graph with all N kernels.
        paper_ms: The paper's milliseconds on one core of a Snapdragon 778G, by TNN; None: no row.
        paper_ap: The paper's AP: COCO test-dev, or YouTube-VIS 2019.
        checkpoints: Whose published weights it loads.
    """

    id: str
    input_size: tuple[int, int]
    parameters: int
    macs: int
    reuse_macs: int
    paper_ms: float | None
    paper_ap: float | None
    checkpoints: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def peers() -> tuple[PeerRow, ...]:
    """Every peer that is built here, counted anew; that takes some seconds.

    Raises:
        ConfigError: The zoo is missing from this installation.
    """
    from mobileinst_deploy.network.macs import count_network_macs
    from mobileinst_deploy.network.peers.catalogue import PEERS

    rows = []
    for peer in PEERS.values():
        network, paper = peer.weightless(), peer.published
        rows.append(
            PeerRow(
                id=peer.id,
                input_size=peer.input_size,
                parameters=sum(p.numel() for p in network.parameters()),
                macs=count_network_macs(network).total,
                reuse_macs=count_network_macs(network, "mask_head").total,
                paper_ms=None if paper is None else paper.ms,
                paper_ap=None if paper is None else paper.ap,
                checkpoints=peer.source,
            )
        )
    return tuple(rows)


def count_cost(config: ModelConfig) -> dict[str, int]:
    """Parameters and multiply-accumulates of a network's frame graph, counted anew."""
    from mobileinst_deploy.network.macs import count_macs

    counted = count_macs(config)
    return {"parameters": counted.total_parameters, "macs": counted.total}
