"""What torchrun or accelerate launch told this process of the others, before it is relied on."""

from __future__ import annotations

import os

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.text import shown, whole

_MOST = 1 << 16
_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """How many processes train together, from 1 up.

    Raises:
        ConfigError: The environment holds something else than a launcher's variables.
    """
    for name, low in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0), ("MASTER_PORT", 1)):
        said = os.environ.get(name)
        if said is not None and whole(said, low, _MOST) is None:
            raise ConfigError(
                f"the environment's {name} is {shown(said, 60)!r}, "
                f"not a whole number from {low} up",
                f"Unset {name}, or let torchrun set it",
                where=name,
            )
    world = whole(os.environ.get("WORLD_SIZE", "1"), 1, _MOST) or 1
    lacking = [name for name in _NEEDED if name not in os.environ]
    if world > 1 and lacking:
        raise ConfigError(
            f"the environment's WORLD_SIZE is {world}, and {lacking[0]} is not set",
            "Unset WORLD_SIZE, or start it under torchrun or accelerate launch",
            where="WORLD_SIZE",
        )
    return world
