"""ONNX Runtime's per-node profile, summed by operator and by part of the network."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.errors import DeviceError
from mobileinst_deploy.specs import Role

#: Where a node belongs, by the module path that the exporter puts into its name; the names are
#: those of the MAC count, so that share of time and share of work stand side by side.
PART_OF_PATH = {
    "backbone": "backbone",
    "mask_decoder": "mask decoder",
    "mask_decoder/projections": "projections",
    "mask_decoder/enhance_x5": "enhancer",
    "mask_decoder/enhance_n5": "enhancer",
    "instance_decoder": "instance decoder",
    "context_projection": "instance decoder",
}
NORMALISATION = "normalisation"
MASKS = "masks"
#: Nodes that graph optimisation made anew between two parts, and so belong to neither.
BETWEEN = "between parts"

_MAX_BYTES = 1 << 28
_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class Share:
    """What one operator or part takes of a graph's run.

    Attributes:
        name: Operator type, or part of the network.
        ms: Milliseconds of one run, the median over the profiled runs.
        share: Of the time in all nodes, 0 to 1.
        nodes: How many nodes ran, in one run.
    """

    name: str
    ms: float
    share: float
    nodes: int


@dataclass(frozen=True)
class GraphProfile:
    """Where one graph spends its time.

    Attributes:
        role: Which graph.
        runs: How many runs were summed, warm-ups left out.
        run_ms: One whole run as the profiler saw it, profiling's own cost included; the median.
        operators: The largest first.
        parts: The largest first.
    """

    role: Role
    runs: int
    run_ms: float
    operators: tuple[Share, ...]
    parts: tuple[Share, ...]


@dataclass(frozen=True)
class _Node:
    name: str
    operator: str
    start: float
    ms: float


def read_profile(path: Path, role: Role, warmups: int) -> GraphProfile:
    """Sum up a profile that the runner left in its output folder.

    Args:
        path: The JSON file, in Chrome's trace format: a list of events with ``cat``, ``name``,
            ``ts`` and ``dur`` in microseconds.
        role: Which graph it is of.
        warmups: How many of its first runs to leave out.

    Raises:
        DeviceError: It cannot be read, or holds no run after the warm-ups.
    """
    events = _events(path)
    runs = sorted(
        (e["ts"], e["dur"]) for e in events if e["cat"] == "Session" and e["name"] == "model_run"
    )[warmups:]
    nodes = sorted(
        (
            _Node(e["name"].removesuffix(_SUFFIX), _operator(e), e["ts"], e["dur"] / 1e3)
            for e in events
            if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)
        ),
        key=lambda node: node.start,
    )
    timed = [[n for n in nodes if ts <= n.start < ts + dur] for ts, dur in runs]
    if not runs or not all(timed):
        raise DeviceError(
            f"the profile {path.name} holds no complete run after {warmups} warm-ups",
            "Profile again with more runs",
        )
    parts = [_parts(run) for run in timed]
    operators = [[node.operator for node in run] for run in timed]
    return GraphProfile(
        role=role,
        runs=len(runs),
        run_ms=statistics.median(dur for _, dur in runs) / 1e3,
        operators=_shares(timed, operators),
        parts=_shares(timed, parts),
    )


def _parts(nodes: Sequence[_Node]) -> list[str]:
    """The part of each node of one run, in order of execution."""
    known = [_part(node.name) for node in nodes]
    before: list[str | None] = []
    after: list[str | None] = []
    for order, found in ((known, before), (known[::-1], after)):
        latest = None
        for part in order:
            latest = part if part in _NAMED else latest
            found.append(latest)
    after.reverse()
    parts = []
    for part, left, right in zip(known, before, after, strict=True):
        if part == MASKS and left is None:
            part = NORMALISATION  # outside every module, and before the first of them
        if part is None:
            # Fused and inserted nodes carry no module's name; execution order tells where they are.
            part = left if left == right or right is None else right if left is None else BETWEEN
        parts.append(part or BETWEEN)
    return parts


_NAMED = frozenset(PART_OF_PATH.values())


def _part(name: str) -> str | None:
    """The part of a node by its name: MASKS at the top level, None if the name says nothing."""
    if not name.startswith("/"):
        return None
    path = name.strip("/")
    while path and path not in PART_OF_PATH:
        path = path.rpartition("/")[0]
    return PART_OF_PATH.get(path, MASKS)


def _shares(timed: Sequence[Sequence[_Node]], labels: Sequence[Sequence[str]]) -> tuple[Share, ...]:
    """Medians over the runs of what all nodes of one label take together."""
    ms: dict[str, list[float]] = {}
    for index, (nodes, names) in enumerate(zip(timed, labels, strict=True)):
        for node, name in zip(nodes, names, strict=True):
            ms.setdefault(name, [0.0] * len(timed))[index] += node.ms
    median = {name: statistics.median(values) for name, values in ms.items()}
    total = sum(median.values()) or 1.0
    count = Counter(labels[-1])
    return tuple(
        Share(name, value, value / total, count[name])
        for name, value in sorted(median.items(), key=lambda item: -item[1])
    )


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is larger than 256 MiB")
        document = json.loads(path.read_bytes())
        if not isinstance(document, list):
            raise ValueError("it is not a list of events")
        events = [e for e in document if isinstance(e, dict) and e.get("ph") == "X"]
        for event in events:
            for field in ("cat", "name"):
                if not isinstance(event.get(field), str):
                    raise ValueError(f"an event's {field} is {event.get(field)!r}"[:100])
            for field in ("ts", "dur"):
                value = event.get(field)
                if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                    raise ValueError(f"an event's {field} is {value!r}"[:100])
    except (OSError, ValueError, RecursionError) as fault:
        raise DeviceError(
            f"the profile {path.name} cannot be read: {fault}", "Profile again"
        ) from None
    return events


def _operator(event: dict[str, Any]) -> str:
    arguments = event.get("args")
    name = arguments.get("op_name") if isinstance(arguments, dict) else None
    return name if isinstance(name, str) and name.isprintable() else "unknown"
