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

    Example:
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


def count_cost(config: ModelConfig) -> dict[str, int]:
    """Parameters and multiply-accumulates of a network's frame graph, counted anew."""
    from mobileinst_deploy.network.macs import count_macs

    counted = count_macs(config)
    return {"parameters": counted.total_parameters, "macs": counted.total}
