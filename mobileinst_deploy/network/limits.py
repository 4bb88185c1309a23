"""What a network may cost, found before it is built.

A configuration of ten lines can ask for more memory than there is.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from mobileinst_deploy.core.config import MASK_STRIDE, ModelConfig
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.network.mobileinst import MobileInst

#: Ten times the paper's largest network; 512 MiB in float32.
MAX_PARAMETERS = 1 << 27
#: Elements of the largest tensor between two layers, for one picture; 512 MiB in float32.
MAX_ACTIVATION = 1 << 27
#: Channels of the widest map, at half the picture: MobileNetV2's in its second block, and of
#: SeaFormer-Large likewise. No other backbone has a wider one.
_WIDEST = 96
_WIDEST_LARGE = 128
#: Weights of the largest backbone, and half as many again.
_BACKBONE = 36_000_000


@lru_cache(maxsize=256)
def count_parameters(config: ModelConfig) -> int:
    """How many weights a network has, counted on torch's meta device, where they take no memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in MobileInst(config).parameters())


def parameter_bound(config: ModelConfig) -> int:
    """No fewer weights than a network has: by the square of its width, rounded up generously."""
    squares = 9 * (config.decoder_convs + 20) + 30 * len(config.stages)
    rows = config.num_queries + config.num_classes + 4096
    return _BACKBONE + squares * config.width**2 + rows * config.width


def largest_activation(config: ModelConfig) -> int:
    """Elements of the largest tensor that one picture leads to."""
    height, width = config.input_size
    cells = (height // MASK_STRIDE) * (width // MASK_STRIDE)
    tokens = cells // config.pool_size**2
    widest = _WIDEST_LARGE if config.backbone == "seaformer-large" else _WIDEST
    return max(
        widest * (height // 2) * (width // 2),
        max(config.num_queries, config.width) * cells,
        config.num_heads * config.num_queries * max(tokens, config.num_queries),
        config.num_queries * config.num_classes,
    )


def require_affordable(config: ModelConfig) -> None:
    """Refuse a network that no phone would run and this machine could not build.

    Raises:
        ConfigError: It has more than :data:`MAX_PARAMETERS` weights, or a tensor of more than
            :data:`MAX_ACTIVATION` elements.
    """
    activation = largest_activation(config)
    if activation > MAX_ACTIVATION:
        raise ConfigError(
            f"the network would make a tensor of {activation:,} elements of one picture, and "
            f"{MAX_ACTIVATION:,} are the most",
            "Lower input_size, num_queries or width",
        )
    # Torch's meta device takes a second to wake up, and usual networks need no exact count.
    if parameter_bound(config) <= MAX_PARAMETERS:
        return
    parameters = count_parameters(config)
    if parameters > MAX_PARAMETERS:
        raise ConfigError(
            f"the network would have {parameters:,} weights, and {MAX_PARAMETERS:,} are the most",
            "Lower width, decoder_convs or the number of stages",
        )
