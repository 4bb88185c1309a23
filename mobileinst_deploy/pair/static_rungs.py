"""The rungs of the ladder that need no run: pair, names, dtypes, shapes, operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.contract import (
    ROLES,
    Role,
    TensorSpec,
)
from mobileinst_deploy.core.records import Check
from mobileinst_deploy.core.text import shape_text
from mobileinst_deploy.pair.onnx_file import (
    FORBIDDEN_OPS,
    OtherNumbers,
    all_nodes,
    get_metadata,
    load_graph,
    opset_of,
    other_numbers,
    tensor_specs,
)


def static_checks(bundle: ExportBundle) -> Iterator[Check]:
    """The rungs that need no run: pair, names, dtypes, shapes, operators.

    Raises:
        BundleError: A graph cannot be read.
    """
    graphs = {role: load_graph(bundle.graphs[role].onnx) for role in ROLES}

    problems = []
    for role, graph in graphs.items():
        carried = get_metadata(graph)
        problems += [
            f"{role}.onnx carries {key} {carried.get(key)!r} and the manifest {value!r}"
            for key, value in bundle.graph_metadata(role).items()
            if carried.get(key) != value
        ]
        if opset_of(graph) != bundle.graphs[role].opset:
            problems.append(
                f"{role}.onnx has opset {opset_of(graph)} and the manifest "
                f"{bundle.graphs[role].opset}"
            )
    yield _static("pair", problems, "manifest, files and both graphs' metadata agree")

    pairs: list[tuple[Role, TensorSpec, TensorSpec]] = []
    problems = []
    for role, graph in graphs.items():
        initialisers = frozenset(t.name for t in graph.graph.initializer)
        spec = bundle.graphs[role].spec
        for kind, want, have in (
            ("inputs", spec.inputs, tensor_specs(list(graph.graph.input), initialisers)),
            ("outputs", spec.outputs, tensor_specs(list(graph.graph.output))),
        ):
            if [t.name for t in want] != [t.name for t in have]:
                problems.append(
                    f"{role} has {kind} {', '.join(t.name for t in have)} instead of "
                    f"{', '.join(t.name for t in want)}"
                )
            else:
                pairs += [(role, w, h) for w, h in zip(want, have, strict=True)]
    yield _static("names", problems, "inputs and outputs are named and ordered as promised")

    problems = [
        f"{role} {want.name} is {have.dtype}, not {want.dtype}"
        for role, want, have in pairs
        if want.dtype != have.dtype
    ]
    numbers = {role: other_numbers(graph) for role, graph in graphs.items()}
    problems += _unannounced(bundle, numbers)
    yield _static("dtypes", problems, f"float32 at the borders and {_inside(numbers)}")

    problems = [
        f"{role} {want.name} has shape {shape_text(have.shape)}, not {shape_text(want.shape)}"
        for role, want, have in pairs
        if want.shape != have.shape
    ]
    yield _static("shapes", problems, "every input and output has its promised shape")

    found = [
        (node.op_type, f"{role} uses {node.op_type} at {node.name or node.output[0]}")
        for role, graph in graphs.items()
        for node in all_nodes(graph)
        if node.op_type in FORBIDDEN_OPS
    ]
    said = f"none of {', '.join(sorted(FORBIDDEN_OPS))}"
    if found and not isinstance(bundle.config, ModelConfig):
        # MobileInst promises the paper's own runtime that it needs none of them; others do not.
        used = ", ".join(sorted({operator for operator, _ in found}))
        found, said = [], f"{used}: not every phone runtime has them"
    yield _static("operators", [problem for _, problem in found], said)


def _unannounced(bundle: ExportBundle, numbers: Mapping[Role, OtherNumbers]) -> Iterator[str]:
    """What is not float32 although the manifest names no step that makes it so."""
    stored: set[str] = {"FLOAT16"} if bundle.halved else set()
    eight_bits = {"INT8", "UINT8"} if bundle.precision == "int8" else set()
    for role, found in numbers.items():
        for name, dtype in found.computed.items():
            if dtype not in eight_bits:
                yield f"{role} computes {name} in {dtype}, not in float32"
        for name, dtype in found.stored.items():
            if dtype not in stored | eight_bits:
                yield f"{role} stores {name} in {dtype}, not in float32"


def _inside(numbers: Mapping[Role, OtherNumbers]) -> str:
    """What the graphs compute in, and what they store otherwise."""
    stored = Counter(dtype for found in numbers.values() for dtype in found.stored.values())
    computed = Counter(dtype for found in numbers.values() for dtype in found.computed.values())
    if not stored and not computed:
        return "inside"
    parts = [f"{count} nodes that give {dtype}" for dtype, count in sorted(computed.items())]
    parts += [f"{count} constants stored as {dtype}" for dtype, count in sorted(stored.items())]
    return f"inside but for {', '.join(parts)}"


def _static(rung: str, problems: list[str], good: str) -> Check:
    return Check(rung, not problems, problems[0] if problems else good, {"problems": problems})
