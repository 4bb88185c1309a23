"""What the dense peers share: many cells each propose an instance, and few are worth a mask.

Their code thresholds all cells, multiplies what is left, and then suppresses duplicates. A pair's
keyframe graph gives a fixed number of kernels, so here the N best cells are taken inside the graph
(as FastInst takes its queries), and duplicates go outside it (``core/suppression.py``).
"""

from __future__ import annotations

from torch import Tensor

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.network.layers import static_shape

#: The logit of a cell that is out of the question; its probability is 1e-13.
OUT = -30.0


def best_cells(worth: Tensor, count: int, *others: Tensor) -> list[Tensor]:
    """The cells of the highest worth.

    Args:
        worth: (B, M).
        count: N, at most M.
        others: Tensors (B, M, X) to pick from alike.

    Returns:
        Each of ``others`` as (B, N, X), best cell first.

    Raises:
        ConfigError: The picture is so small that it has fewer cells.
    """
    cells = static_shape(worth)[1]
    if cells < count:
        raise ConfigError(
            f"a picture of this size has {cells} places to propose an instance from, fewer than"
            f" the {count} that the network asks for",
            "Take a larger input size",
        )
    index = worth.topk(count, dim=1).indices.unsqueeze(2)
    return [x.gather(1, index.expand(-1, -1, static_shape(x)[2])) for x in others]
