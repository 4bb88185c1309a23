"""The record of counted ARM instructions: the form of ``instructions.json``, schema 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from mobileinst_deploy.core.contract import Role

SCHEMA = 2


@dataclass(frozen=True)
class InstructionRecord:
    """What one run of each graph executes on ARM: exact, and not a latency.

    Attributes:
        bundle_sha256: Of the pair's manifest.
        model_id: Its model.
        form: ``plain``, ``optimized``, ``half``, ``int8``.
        runtime: Name and version.
        live_kernels: Kernels handed to the mask-head graph.
        instructions: By graph.
        equal_runs: How many starts of the runner gave that very count, by graph.
    """

    note: ClassVar[str] = "executed ARM instructions under qemu: exact, and not a latency"

    bundle_sha256: str
    model_id: str
    form: str
    runtime: str
    live_kernels: int
    instructions: Mapping[Role, int]
    equal_runs: Mapping[Role, int]

    def to_dict(self) -> dict[str, Any]:
        """The form of ``instructions.json``."""
        return {"schema": SCHEMA, **asdict(self), "note": self.note}
