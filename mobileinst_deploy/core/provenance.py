"""Where a network comes from: the one record that a loaded model, a pair and its graphs carry."""

from __future__ import annotations

from dataclasses import dataclass

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import Role
from mobileinst_deploy.core.needs import Description


@dataclass(frozen=True)
class Provenance:
    """What a network is and where its weights come from.

    Attributes:
        model_id: The zoo id, the name given by a model.toml, or the checkpoint's file name.
        config: Its configuration at the size asked for, or another network's needs.
        trained: Whether the weights were read from a file; False means random ones.
        seed: Of random weights, else None.
        checkpoint_sha256: Of the weights file, else None.
        tolerance: What its exports are allowed.
    """

    model_id: str
    config: Description
    trained: bool
    seed: int | None
    checkpoint_sha256: str | None
    tolerance: Tolerance

    @property
    def weights_note(self) -> str:
        """Where the weights come from, for people."""
        if self.trained:
            return f"trained, sha256 {(self.checkpoint_sha256 or '')[:12]}"
        return f"RANDOM weights (seed {self.seed}); speed is real, masks mean nothing"

    def metadata(self, role: Role, pair_id: str, opset: int) -> dict[str, str]:
        """What a graph says of itself, so that it can be told where it belongs when it is alone.

        Args:
            role: Of the graph.
            pair_id: Of its pair.
            opset: Its ONNX operator set.
        """
        config = self.config
        height, width = config.input_size
        return {
            "pair_id": pair_id,
            "role": role,
            "model_id": self.model_id,
            "checkpoint_sha256": self.checkpoint_sha256 or f"random weights, seed {self.seed}",
            "input_size": f"{height}x{width}",
            "stride": str(config.mask_stride),
            "classes": "\n".join(config.classes),
            "mean": " ".join(map(str, config.mean)),
            "std": " ".join(map(str, config.std)),
            "opset": str(opset),
        }
