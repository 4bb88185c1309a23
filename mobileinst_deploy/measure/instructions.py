"""Executed ARM instructions, by kind, and the cycles that they cannot go below.

Counts alone misorder runtimes: a runtime may execute fewer instructions and yet more of those that
a core can begin only two of in a cycle. So each count says what it is made of, and a model of a
core's width gives a bound. Neither is a latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from mobileinst_deploy.core.contract import Role

SCHEMA = 3

#: Multiply-accumulates that one instruction of a kind does.
MACS = {"fmla_128": 4, "fmla_64": 2, "fmla_scalar": 1, "fmla_half_128": 8, "fmla_half_64": 4}
#: Every kind that ``android_bench/counter/kinds.h`` tells apart.
KINDS = (*MACS, "load", "store", "branch", "other")

#: Executed instructions by kind; they add up to the count.
Kinds = Mapping[str, int]


@dataclass(frozen=True)
class CoreWidth:
    """How many instructions a core can begin in a cycle.

    Attributes:
        name: Of the core.
        all: Of any kind: what dispatch passes on.
        fmla: Multiply-accumulates of any width: one for each floating-point pipeline.
        load: Loads.
        store: Stores.
        branch: Branches.
    """

    name: str
    all: int
    fmla: int
    load: int
    store: int
    branch: int


#: The paper's phone has one as its fastest core. Arm, "Cortex-A78 Core Software Optimization
#: Guide", section 2.1 (pipeline overview) and 4.1 (dispatch constraints).
CORTEX_A78 = CoreWidth("Cortex-A78", all=6, fmla=2, load=3, store=2, branch=2)


@dataclass(frozen=True)
class Bound:
    """Cycles below which a core of some width cannot go: a model, and far from a latency.

    Attributes:
        cycles: For one run of the graph, with every cache hit and nothing waited for.
        by: What binds: ``all`` (dispatch), ``fmla``, ``load``, ``store`` or ``branch``.
    """

    cycles: int
    by: str


def bound(kinds: Kinds, width: CoreWidth = CORTEX_A78) -> Bound:
    """What a core of this width needs at the least.

    Args:
        kinds: Executed instructions by kind.
        width: Of the core.

    Examples:
        >>> bound({"fmla_128": 100, "load": 30, "other": 50})
        Bound(cycles=50, by='fmla')
    """
    needed = {
        "all": sum(kinds.values()) / width.all,
        "fmla": multiply_accumulates(kinds) / width.fmla,
        **{name: kinds.get(name, 0) / getattr(width, name) for name in ("load", "store", "branch")},
    }
    by = max(needed, key=lambda name: needed[name])
    return Bound(round(needed[by]), by)


def multiply_accumulates(kinds: Kinds) -> int:
    """How many of the instructions multiply and accumulate."""
    return sum(kinds.get(name, 0) for name in MACS)


@dataclass(frozen=True)
class InstructionRecord:
    """What one run of each graph executes on ARM: the form of ``instructions.json``, schema 3.

    Attributes:
        bundle_sha256: Of the pair's manifest.
        model_id: Its model.
        form: ``plain``, ``optimized``, ``half``, ``int8``.
        runtime: Name and version.
        live_kernels: Kernels handed to the mask-head graph.
        instructions: By graph.
        equal_runs: How many starts of the runner gave that very count, by graph.
        kinds: By graph and kind (:data:`KINDS`); they add up to the count.
        caveat: Why this is not the paper's protocol, or None.
    """

    note: ClassVar[str] = "executed ARM instructions under qemu: exact, and not a latency"
    model: ClassVar[str] = (
        f"a bound is a model: the cycles that a {CORTEX_A78.name} needs at the least, which begins "
        f"{CORTEX_A78.all} instructions a cycle, {CORTEX_A78.fmla} of them multiply-accumulates, "
        f"{CORTEX_A78.load} loads, {CORTEX_A78.store} stores, {CORTEX_A78.branch} branches"
    )

    bundle_sha256: str
    model_id: str
    form: str
    runtime: str
    live_kernels: int
    instructions: Mapping[Role, int]
    equal_runs: Mapping[Role, int]
    kinds: Mapping[Role, Kinds]
    caveat: str | None = None

    @property
    def bounds(self) -> Mapping[Role, Bound]:
        """By graph."""
        return {role: bound(kinds) for role, kinds in self.kinds.items()}

    def to_dict(self) -> dict[str, Any]:
        """The form of ``instructions.json``."""
        bounds = {role: asdict(found) for role, found in self.bounds.items()}
        said = {"bounds": bounds, "bound_model": self.model, "note": self.note}
        return {"schema": SCHEMA, **asdict(self), **said}
