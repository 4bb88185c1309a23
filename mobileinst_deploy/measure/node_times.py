"""ONNX Runtime's per-node profile, summed by operator and by part of the network."""

from __future__ import annotations

import re
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import onnx

from mobileinst_deploy.core.contract import MASK_LOGITS, Role
from mobileinst_deploy.core.documents import Blame, parse_json, read_within
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.places import places

HEADS = "instance decoder, heads"
#: Where a node belongs, by the module path that the exporter puts into its name; the names are
#: those of the MAC count, so that share of time and share of work stand side by side, and divide
#: the instance decoder further.
PART_OF_PATH = {
    "backbone": "backbone",
    "mask_decoder": "mask decoder",
    "mask_decoder/projections": "projections",
    "mask_decoder/enhance_x5": "enhancer",
    "mask_decoder/enhance_n5": "enhancer",
    "instance_decoder": "instance decoder",
    "instance_decoder/class_head": HEADS,
    "instance_decoder/objectness_head": HEADS,
    "instance_decoder/kernel_head": HEADS,
    "context_projection": "instance decoder",
}
NORMALISATION = "normalisation"
MASKS = "masks"
#: Nodes that graph optimisation made anew between two parts: nobody can say to which they belong.
BETWEEN = "unknown, between parts"

_MAX_BYTES = 1 << 28
_MAX_OBJECTS = 5_000_000
#: Microseconds; a profile runs for less than a year.
_Time = Annotated[float, msgspec.Meta(ge=0, le=365 * 86400e6)]
_STAGE = re.compile(r"instance_decoder/stages\.(\d{1,2})(?=/|$)")
_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class Share:
    """What one operator or part takes of a graph's run.

    Attributes:
        name: Operator type, or part of the network.
        ms: Milliseconds of one run: the sum of its nodes' medians over the profiled runs.
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


class _Arguments(msgspec.Struct):
    op_name: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class _Event(msgspec.Struct):
    """An event of Chrome's trace format; of those that are not whole (``X``) only that is read."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    ts: _Time = 0.0
    dur: _Time = 0.0
    args: _Arguments | None = None

    def __post_init__(self) -> None:
        if self.ph == "X" and not (self.cat and self.name):
            raise ValueError("lacks cat or name")


@dataclass(frozen=True)
class _Node:
    name: str
    operator: str
    start: float
    ms: float


def parts_of(graph: onnx.ModelProto, stages: Sequence[str] = ()) -> dict[str, str]:
    """The part of each node that can be placed, also where simplifying took its name away.

    A node without a module's name is placed by the tensors that it makes, and else by the nodes
    that take them, if they all belong to one part.

    Args:
        graph: A frame graph or a mask-head graph.
        stages: Kinds of the instance decoder's stages, in order, such as ``global``.

    Returns:
        Part by the node's name.
    """
    # Whatever the graph gives besides masks, a head of the instance decoder made.
    made = {o.name: HEADS for o in graph.graph.output if o.name != MASK_LOGITS}
    taken_by: dict[str, set[str | None]] = {}
    placed: dict[str, str] = {}
    for node in reversed(graph.graph.node):
        consumers = set().union(*(taken_by.get(o, set()) for o in node.output))
        candidates = [_part(node.name, stages)]
        candidates += [made.get(o) or _part(o, stages) for o in node.output]
        candidates += list(consumers) if len(consumers) == 1 else []
        part = next((c for c in candidates if c is not None), None)
        for name in node.input:
            taken_by.setdefault(name, set()).add(part)
        if part is not None:
            placed[node.name] = part
    return placed


@places(0)
def read_profile(
    path: Path,
    role: Role,
    warmups: int,
    parts: Mapping[str, str] | None = None,
    stages: Sequence[str] = (),
) -> GraphProfile:
    """Sum up a profile that ONNX Runtime wrote, here or on a phone; nothing in it is trusted.

    Args:
        path: The JSON file, in Chrome's trace format: a list of events with ``cat``, ``name``,
            ``ts`` and ``dur`` in microseconds.
        role: Which graph it is of.
        warmups: How many of its first runs to leave out.
        parts: From :func:`parts_of`, for the nodes whose names say nothing.
        stages: As for :func:`parts_of`.

    Raises:
        DeviceError: It cannot be read, or holds no run after the warm-ups.
    """
    events = _events(path)
    runs = sorted((e.ts, e.dur) for e in events if e.cat == "Session" and e.name == "model_run")[
        warmups:
    ]
    nodes = sorted(
        (
            _Node(e.name.removesuffix(_SUFFIX), _operator(e), e.ts, e.dur / 1e3)
            for e in events
            if e.cat == "Node" and e.name.endswith(_SUFFIX)
        ),
        key=lambda node: node.start,
    )
    begins = [node.start for node in nodes]
    timed = [nodes[bisect_left(begins, ts) : bisect_left(begins, ts + dur)] for ts, dur in runs]
    if not runs or not all(timed):
        raise DeviceError(
            f"the profile {path.name} holds no complete run after {warmups} warm-ups",
            "Profile again with more runs",
        )
    first = timed[0]
    if any([n.name for n in run] != [n.name for n in first] for run in timed[1:]):
        raise DeviceError(
            f"the runs in the profile {path.name} are not all of the same nodes", "Profile again"
        )
    # Node by node, so that what disturbed one node of one run disturbs no sum.
    ms = [statistics.median(run[k].ms for run in timed) for k in range(len(first))]
    return GraphProfile(
        role=role,
        runs=len(runs),
        run_ms=statistics.median(dur for _, dur in runs) / 1e3,
        operators=_shares(ms, [node.operator for node in first]),
        parts=_shares(ms, _parts(first, parts or {}, stages)),
    )


def _parts(nodes: Sequence[_Node], placed: Mapping[str, str], stages: Sequence[str]) -> list[str]:
    """The part of each node of one run, in order of execution."""
    known = [placed.get(node.name) or _part(node.name, stages) for node in nodes]
    before: list[str | None] = []
    after: list[str | None] = []
    for order, found in ((known, before), (known[::-1], after)):
        latest = None
        for part in order:
            latest = part if part not in (None, MASKS) else latest
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


def _part(name: str, stages: Sequence[str]) -> str | None:
    """The part of a node or tensor by name: MASKS at the top level, None if it says nothing."""
    name = name.removeprefix("fused ")
    if not name.startswith("/"):
        return None
    path = name.strip("/")
    stage = _STAGE.match(path)
    if stage is not None:
        index = int(stage[1])
        kind = f"{stages[index]} stage" if index < len(stages) else f"stage {index}"
        return f"instance decoder, {kind}"
    while path and path not in PART_OF_PATH:
        path = path.rpartition("/")[0]
    return PART_OF_PATH.get(path, MASKS)


def _shares(ms: Sequence[float], labels: Sequence[str]) -> tuple[Share, ...]:
    """What all nodes of one label take together."""
    sums: dict[str, float] = {}
    for value, name in zip(ms, labels, strict=True):
        sums[name] = sums.get(name, 0.0) + value
    total = sum(sums.values()) or 1.0
    count = Counter(labels)
    return tuple(
        Share(name, value, value / total, count[name])
        for name, value in sorted(sums.items(), key=lambda item: -item[1])
    )


def _events(path: Path) -> list[_Event]:
    blame = Blame(f"the profile {path.name} cannot be read", DeviceError, "Profile again")
    data = read_within(path, _MAX_BYTES, blame)
    # Every event is an object; so many bytes could hold enough empty ones to fill the memory.
    if data.count(b"{") > _MAX_OBJECTS:
        raise blame.wrong(f"it has more than {_MAX_OBJECTS:,} objects")
    events = parse_json(data, list[_Event], blame)
    return [event for event in events if event.ph == "X"]


def _operator(event: _Event) -> str:
    name = event.args.op_name if event.args is not None else ""
    return name if name and name.isprintable() else "unknown"
