"""The ladder: is the exported pair, where it runs, the network that PyTorch trained?

Every rung answers one question, and a rung that fails says where. Comparisons are with PyTorch in
eval mode on real pictures; the numbers allowed live with the model (its ``tolerance``). Nothing
here needs PyTorch itself: the reference is the bundle's golden data or a fresh one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.config import ModelConfig, Tolerance
from mobileinst_deploy.core.contract import (
    ROLES,
    Call,
    GraphRunner,
    Role,
    TensorSpec,
    is_carried,
)
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.core.picture_rules import SCORE_THRESHOLD
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import Check, ParityReport, TensorParity
from mobileinst_deploy.core.tracker import class_scores
from mobileinst_deploy.pair.comparison import compare_tensor, mask_ious
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

_OUTPUTS = Check("outputs", True, "every run returned what the graphs declare")

Arrays = dict[str, np.ndarray]


def verify_bundle(
    bundle: ExportBundle,
    runner: GraphRunner,
    golden: Golden,
    *,
    reference: str,
    progress: Progress = silent,
) -> ParityReport:
    """Climb the ladder.

    Args:
        bundle: The pair, already checked against its manifest and files by ``load_bundle``.
        runner: Where its graphs run.
        golden: PyTorch's outputs on the pictures to use.
        reference: Where that came from, for the report.
        progress: Told of each batch of runs.

    Returns:
        The report; it stops below the first rung that makes the next ones meaningless.

    Raises:
        BundleError: A graph cannot be read.
        DeviceError: The runner failed.
    """
    checks: list[Check] = []
    tensors: list[TensorParity] = []
    for check in static_checks(bundle):
        checks.append(check)
        if not check.passed:
            break
    else:
        run_checks, tensors = _run_checks(bundle, runner, golden, progress)
        checks += run_checks
    return ParityReport(
        bundle_sha256=bundle.sha256,
        model_id=bundle.model_id,
        trained=bundle.trained,
        device=runner.name,
        runtime=runner.runtime,
        reference=reference,
        tolerance={
            **asdict(bundle.tolerance),
            "edge_logit": bundle.tolerance.edge_logit,
            "edge_score": bundle.tolerance.edge_score,
        },
        checks=tuple(checks),
        tensors=tuple(tensors),
        caveat=bundle.caveat,
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
            for key, value in bundle.metadata(role).items()
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
        f"{role} {want.name} has shape {_shown(have.shape)}, not {_shown(want.shape)}"
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


def _run_checks(
    bundle: ExportBundle,
    runner: GraphRunner,
    golden: Golden,
    progress: Progress,
) -> tuple[list[Check], list[TensorParity]]:
    """The rungs that need runs: the frame graph's first, then all of the mask head's at once.

    The mask head runs on every picture with PyTorch's kernels (``own``) and with those that the
    frame graph gave (``carried``), and on the first picture with some of its kernels (``live``).
    """
    count = len(golden.images)
    subsets = _live_subsets(bundle)
    label, total = f"verify on {runner.name}", 3 * count + len(subsets)
    progress(label, 0, total)
    frames = _run(runner, "frame", [golden.inputs("frame", i) for i in range(count)])
    progress(label, count, total)
    broken = _broken(bundle, {"frame": frames})
    if broken:
        return broken, []

    own = [golden.inputs("mask_head", i) for i in range(count)]
    keys = golden.keyframe.tolist()
    carried = [
        own[i] | {n: a for n, a in frames[keys[i]].items() if is_carried(n)} for i in range(count)
    ]
    first = golden.kernels(0)
    live = [own[0] | {"kernels": np.ascontiguousarray(first[:, s])} for s in subsets]
    heads = _run(runner, "mask_head", own + carried + live)
    progress(label, total, total)
    broken = _broken(bundle, {"frame": frames, "mask_head": heads})
    if broken:
        return broken, []

    measured: dict[Role, Arrays] = {"frame": _stacked(frames), "mask_head": _stacked(heads[:count])}
    tensors = [
        compare_tensor(role, name, measured[role][name], want, bundle.tolerance)
        for role in ROLES
        for name, want in golden.outputs(role).items()
    ]
    reuse = _stacked(heads[count : 2 * count])["mask_logits"]
    checks = [
        _OUTPUTS,
        Check("finite", True, "no NaN and no infinity"),
        _values(tensors),
        _meaning(bundle.tolerance, golden, measured),
        _pair_contract(bundle.tolerance, golden, measured["frame"]["mask_logits"], reuse),
        _live_kernels(bundle, subsets, heads[0], heads[2 * count :]),
        _sequence(bundle.tolerance, golden, reuse),
    ]
    return checks, tensors


def _static(rung: str, problems: list[str], good: str) -> Check:
    return Check(rung, not problems, problems[0] if problems else good, {"problems": problems})


def _shown(shape: tuple[int | str, ...]) -> str:
    return "x".join(map(str, shape))


def _run(runner: GraphRunner, role: Role, inputs: Sequence[Arrays]) -> list[Arrays]:
    outputs = runner.outputs([Call(role, i) for i in inputs])
    if len(outputs) != len(inputs):
        raise DeviceError(
            f"{runner.name} answered {len(outputs)} of {len(inputs)} runs of the {role} graph",
            "Run it again",
        )
    return outputs


def _stacked(runs: Sequence[Arrays]) -> Arrays:
    """Outputs of several runs by name, each (P, ...)."""
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


def _live_subsets(bundle: ExportBundle) -> list[list[int]]:
    """Kernels to pass alone: every third and the last, and the last one by itself."""
    if all(isinstance(v, int) for t in bundle.graphs["mask_head"].spec.inputs for v in t.shape):
        return []
    n = bundle.config.num_queries
    return [sorted({n - 1, *range(0, n, 3)}), [n - 1]]


def _broken(bundle: ExportBundle, measured: Mapping[Role, list[Arrays]]) -> list[Check]:
    """The rungs ``outputs`` and ``finite``, up to the one that fails; none when both hold."""
    count = len(measured["frame"])
    returned = [
        # The mask head runs twice on every picture, then on the first one only.
        (role, index % count if index < 2 * count else 0, spec, outputs)
        for role, runs in measured.items()
        for index, outputs in enumerate(runs)
        for spec in bundle.graphs[role].spec.outputs
    ]
    for role, picture, spec, outputs in returned:
        array = outputs.get(spec.name)
        if array is None or not spec.accepts(array):
            got = "nothing" if array is None else f"{array.dtype} {_shown(array.shape)}"
            detail = (
                f"{role} {spec.name} of picture {picture} came back as {got}, not "
                f"{spec.dtype} {_shown(spec.shape)}"
            )
            return [Check("outputs", False, detail, {"graph": role, "picture": picture})]
    for role, picture, spec, outputs in returned:
        bad = ~np.isfinite(outputs[spec.name])
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            detail = (
                f"{role} {spec.name} of picture {picture} holds {int(bad.sum())} values that are "
                f"not finite, the first at position {where}"
            )
            figures = {"graph": role, "picture": picture}
            return [_OUTPUTS, Check("finite", False, detail, figures)]
    return []


def _values(tensors: list[TensorParity]) -> Check:
    worst = max(tensors, key=lambda t: (not t.passed, t.max_excess))
    figures = {"max_abs": max(t.max_abs for t in tensors)}
    if worst.passed:
        detail = f"largest difference {figures['max_abs']:.2e} over {len(tensors)} tensors"
        return Check("values", True, detail, figures)
    detail = (
        f"{worst.graph} {worst.tensor} differs by up to {worst.max_abs:.3g}, "
        f"{worst.max_excess:.3g} times the tolerance, at picture {worst.worst[0]}, "
        f"position {worst.worst[1:]} (cosine {worst.cosine:.6f})"
    )
    return Check("values", False, detail, figures)


def _meaning(tolerance: Tolerance, golden: Golden, measured: Mapping[Role, Arrays]) -> Check:
    """Masks, classes and scores as an app would read them."""
    masks = [
        (role, measured[role]["mask_logits"], golden.outputs(role)["mask_logits"]) for role in ROLES
    ]
    edges = tolerance.edge_logit
    ious = np.stack([mask_ious(got, want, edges) for _, got, want in masks])
    strict = np.stack([mask_ious(got, want, edge=0) for _, got, want in masks])
    want_scores = class_scores(golden.frame["class_logits"], golden.frame["objectness_logits"])
    frame = measured["frame"]
    got_scores = class_scores(frame["class_logits"], frame["objectness_logits"])
    differ = (want_scores > SCORE_THRESHOLD) != (got_scores > SCORE_THRESHOLD)
    decided = np.abs(want_scores - SCORE_THRESHOLD) > tolerance.edge_score
    edge = int((differ & ~decided).sum())
    fell = f"; {edge} scores within {tolerance.edge_score} of it fall on the other side"
    undecided = fell if edge else ""
    differ &= decided
    instances = int((want_scores > SCORE_THRESHOLD).any(-1).sum())
    figures = {
        "min_mask_iou": float(ious.min()),
        "mean_mask_iou": float(ious.mean()),
        "min_mask_iou_with_edges": float(strict.min()),
        "mean_mask_iou_with_edges": float(strict.mean()),
        "masks": int(ious.size),
        "instances_above_threshold": instances,
        "classes_that_differ": int(differ.sum()),
        "scores_on_the_other_side_of_an_edge": edge,
    }
    if differ.any():
        picture, query, label = (int(i) for i in np.argwhere(differ)[0])
        detail = (
            f"frame class_logits: class {label} of query {query} on picture {picture} scores "
            f"{got_scores[picture, query, label]:.4f} instead of "
            f"{want_scores[picture, query, label]:.4f}, on the other side of {SCORE_THRESHOLD}"
        )
        return Check("meaning", False, detail, figures)
    if ious.min() < tolerance.min_mask_iou:
        graph, picture, query = (int(i) for i in np.unravel_index(ious.argmin(), ious.shape))
        detail = (
            f"{ROLES[graph]} mask_logits: mask {query} of picture {picture} overlaps its reference "
            f"with IoU {ious.min():.4f}, below {tolerance.min_mask_iou}"
        )
        return Check("meaning", False, detail, figures)
    detail = (
        f"lowest IoU of {ious.size} masks {ious.min():.4f} ({strict.min():.4f} with pixels whose "
        f"logit is within {edges} of 0), same classes above {SCORE_THRESHOLD} "
        f"({instances} instances{undecided})"
    )
    return Check("meaning", True, detail, figures)


def _pair_contract(
    tolerance: Tolerance, golden: Golden, frame: np.ndarray, reuse: np.ndarray
) -> Check:
    """The frame graph's kernels, fed to the mask head on the same picture, give its own masks."""
    keys = sorted(set(golden.keyframe.tolist()))
    parity = compare_tensor("mask_head", "mask_logits", reuse[keys], frame[keys], tolerance)
    figures = {"max_abs": parity.max_abs, "keyframes": len(keys)}
    if parity.passed:
        detail = f"both graphs give the same masks within {parity.max_abs:.2e}"
        return Check("pair contract", True, detail, figures)
    detail = (
        f"on keyframe {keys[parity.worst[0]]} the two graphs' mask_logits differ by up to "
        f"{parity.max_abs:.3g} at position {parity.worst[1:]}"
    )
    return Check("pair contract", False, detail, figures)


def _live_kernels(
    bundle: ExportBundle, subsets: list[list[int]], whole: Arrays, live: Sequence[Arrays]
) -> Check:
    """A mask does not depend on which other kernels are passed with its own."""
    if not subsets:
        return Check("live kernels", True, "the number of kernels is fixed in this export")
    n = bundle.config.num_queries
    worst = 0.0
    for subset, outputs in zip(subsets, live, strict=True):
        want = whole["mask_logits"][:, subset]
        got = outputs["mask_logits"]
        if got.shape != want.shape:
            detail = (
                f"{len(subset)} kernels gave mask_logits of shape {_shown(got.shape)}, not "
                f"{_shown(want.shape)}"
            )
            return Check("live kernels", False, detail)
        parity = compare_tensor("mask_head", "mask_logits", got, want, bundle.tolerance)
        worst = max(worst, parity.max_abs)
        if not parity.passed:
            detail = (
                f"with {len(subset)} of {n} kernels mask_logits change by up to "
                f"{parity.max_abs:.3g} at position {parity.worst[1:]}"
            )
            return Check("live kernels", False, detail, {"max_abs": worst})
    detail = f"{len(subsets[0])} and 1 of {n} kernels give the same masks within {worst:.2e}"
    return Check("live kernels", True, detail, {"max_abs": worst})


def _sequence(tolerance: Tolerance, golden: Golden, reuse: np.ndarray) -> Check:
    """Kernels handed from keyframe to reuse frames as in a video; errors must not grow."""
    drift = []
    problem = None
    for index, key in enumerate(golden.keyframe.tolist()):
        if key == index:
            continue
        got, want = reuse[index : index + 1], golden.mask_logits[index : index + 1]
        parity = compare_tensor("mask_head", "mask_logits", got, want, tolerance)
        iou = float(mask_ious(got, want, tolerance.edge_logit).min())
        age = index - key
        drift.append({"age": age, "max_abs": parity.max_abs, "min_mask_iou": iou})
        if problem is None and not (parity.passed and iou >= tolerance.min_mask_iou):
            problem = (
                f"{age} frames after its keyframe, mask_logits of picture {index} differ by up to "
                f"{parity.max_abs:.3g} at position {parity.worst[1:]} (lowest mask IoU {iou:.4f})"
            )
    if not drift:
        return Check("sequence", True, "one picture alone makes no clip", {"frames": []})
    shown = ", ".join(f"{d['max_abs']:.1e}" for d in drift)
    good = f"drift over {len(drift)} reuse frames: {shown}"
    return Check("sequence", problem is None, problem or good, {"frames": drift})
