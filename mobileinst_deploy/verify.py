"""The ladder: is the exported pair, where it runs, the network that PyTorch trained?

Every rung answers one question, and a rung that fails says where. Comparisons are with PyTorch in
eval mode on real pictures; the numbers allowed live with the model (its ``tolerance``). Nothing
here needs PyTorch itself: the reference is the bundle's golden data or a fresh one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import onnx

from mobileinst_deploy.bundle import ExportBundle, Golden
from mobileinst_deploy.graphs import (
    FORBIDDEN_OPS,
    float_dtypes,
    get_metadata,
    load_graph,
    tensor_specs,
)
from mobileinst_deploy.progress import Progress, silent
from mobileinst_deploy.results import Check, ParityReport, TensorParity
from mobileinst_deploy.specs import ROLES, Call, GraphRunner, Role, TensorSpec, Tolerance

SCORE_THRESHOLD = 0.3

Outputs = dict[str, np.ndarray]


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
        progress: Told of each rung.

    Returns:
        The report; it stops below the first rung that makes the next ones meaningless.

    Raises:
        BundleError: A graph cannot be read.
        DeviceError: The runner failed.
    """
    checks: list[Check] = []
    tensors: list[TensorParity] = []

    def report() -> ParityReport:
        return ParityReport(
            bundle_sha256=bundle.sha256,
            model_id=bundle.model_id,
            trained=bundle.trained,
            device=runner.name,
            reference=reference,
            tolerance=asdict(bundle.tolerance),
            checks=tuple(checks),
            tensors=tuple(tensors),
        )

    graphs = {role: load_graph(bundle.graphs[role].path) for role in ROLES}
    for check in static_checks(bundle, graphs):
        checks.append(check)
        if not check.passed:
            return report()

    count = len(golden.images)
    steps = 2 * count
    progress(f"verify on {runner.name}", 0, steps)
    frames = _run(runner, [_frame_call(golden, i) for i in range(count)])
    progress(f"verify on {runner.name}", count, steps)
    heads = _run(runner, [_head_call(golden, i, golden.kernels(i)) for i in range(count)])
    progress(f"verify on {runner.name}", steps, steps)
    measured: dict[Role, list[Outputs]] = {"frame": frames, "mask_head": heads}

    wrong = _returned_wrongly(bundle, measured)
    checks.append(wrong or Check("outputs", True, "every run returned what the graphs declare"))
    if wrong is not None:
        return report()
    finite = _finite(measured)
    checks.append(finite)
    if not finite.passed:
        return report()

    wanted: dict[Role, dict[str, np.ndarray]] = {
        "frame": dict(golden.frame),
        "mask_head": {"mask_logits": golden.mask_logits},
    }
    for role in ROLES:
        for name, want in wanted[role].items():
            got = np.concatenate([outputs[name] for outputs in measured[role]])
            tensors.append(compare_tensor(role, name, got, want, bundle.tolerance))
    checks.append(_values(tensors))
    checks.append(_meaning(bundle.tolerance, golden, frames, heads))
    checks.append(_pair_contract(bundle, runner, golden, frames))
    checks.append(_live_kernels(bundle, runner, golden, heads))
    checks.append(_sequence(bundle, runner, golden, frames))
    return report()


def static_checks(
    bundle: ExportBundle, graphs: dict[Role, onnx.ModelProto]
) -> Iterator[Check]:
    """The rungs that need no run: pair, names, dtypes, shapes, operators."""
    problems = []
    for role, graph in graphs.items():
        carried = get_metadata(graph)
        wanted = {
            "pair_id": bundle.pair_id,
            "role": role,
            "model_id": bundle.model_id,
            "mean": " ".join(map(str, bundle.config.mean)),
            "std": " ".join(map(str, bundle.config.std)),
            "classes": "\n".join(bundle.config.classes),
        }
        problems += [
            f"{role}.onnx carries {key} {carried.get(key)!r} and the manifest {value!r}"
            for key, value in wanted.items()
            if carried.get(key) != value
        ]
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
    if not bundle.optimized:
        for role, graph in graphs.items():
            problems += [
                f"{role} computes {name} in {dtype}, not in float32"
                for name, dtype in float_dtypes(graph).items()
            ]
    yield _static("dtypes", problems, "float32 at the borders and inside")

    problems = [
        f"{role} {want.name} has shape {have.shape}, not {want.shape}"
        for role, want, have in pairs
        if want.shape != have.shape
    ]
    yield _static("shapes", problems, "every input and output has its promised shape")

    problems = [
        f"{role} uses {node.op_type} at {node.name or node.output[0]}"
        for role, graph in graphs.items()
        for node in graph.graph.node
        if node.op_type in FORBIDDEN_OPS
    ]
    yield _static("operators", problems, f"none of {', '.join(sorted(FORBIDDEN_OPS))}")


def compare_tensor(
    graph: str, name: str, got: np.ndarray, want: np.ndarray, tolerance: Tolerance
) -> TensorParity:
    """Compare one output over all pictures, each array (P, ...), with its reference."""
    difference = np.abs(got.astype(np.float64) - want)
    size = np.abs(want.astype(np.float64))
    excess = difference / np.maximum(tolerance.atol + tolerance.rtol * size, 1e-300)
    worst = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    significant = size > tolerance.atol
    relative = difference[significant] / size[significant]
    cosines = [cosine(g, w) for g, w in zip(got, want, strict=True)]
    lowest = min(cosines)
    max_excess = float(excess.max())
    return TensorParity(
        graph=graph,
        tensor=name,
        max_abs=float(difference.max()),
        max_rel=float(relative.max()) if relative.size else 0.0,
        cosine=lowest,
        max_excess=max_excess,
        worst=worst,
        passed=max_excess <= 1 and lowest >= tolerance.min_cosine,
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine similarity of two arrays, flattened; 1 when both are zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    if norms == 0:
        return 1.0 if not x.any() and not y.any() else 0.0
    return min(1.0, float(x @ y) / norms)


def mask_ious(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """IoU of masks thresholded from logits (..., N, h, w), per mask; 1 where both are empty."""
    a, b = got > 0, want > 0
    union = (a | b).sum((-2, -1))
    intersection = (a & b).sum((-2, -1))
    result: np.ndarray = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    return result


def scores(class_logits: np.ndarray, objectness_logits: np.ndarray) -> np.ndarray:
    """sqrt(sigmoid(class) * sigmoid(objectness)), (..., N, C), from (..., N, C) and (..., N, 1)."""
    result: np.ndarray = np.sqrt(_sigmoid(class_logits) * _sigmoid(objectness_logits))
    return result


def _sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 0.5 * (1 + np.tanh(0.5 * x.astype(np.float64)))
    return result


def _static(rung: str, problems: list[str], good: str) -> Check:
    return Check(rung, not problems, problems[0] if problems else good, {"problems": problems})


def _run(runner: GraphRunner, calls: Sequence[Call]) -> list[Outputs]:
    return runner.outputs(list(calls))


def _frame_call(golden: Golden, index: int) -> Call:
    return Call("frame", {"image": golden.image(index)})


def _head_call(golden: Golden, index: int, kernels: np.ndarray) -> Call:
    return Call("mask_head", {"image": golden.image(index), "kernels": kernels})


def _returned_wrongly(
    bundle: ExportBundle, measured: dict[Role, list[Outputs]]
) -> Check | None:
    for role, runs in measured.items():
        for index, outputs in enumerate(runs):
            for spec in bundle.graphs[role].spec.outputs:
                array = outputs.get(spec.name)
                if array is None or not spec.accepts(array):
                    got = "nothing" if array is None else f"{array.dtype} {array.shape}"
                    detail = f"{role} returned {got} as {spec.name} for picture {index}"
                    return Check("outputs", False, detail)
    return None


def _finite(measured: dict[Role, list[Outputs]]) -> Check:
    for role, runs in measured.items():
        for index, outputs in enumerate(runs):
            for name, array in outputs.items():
                bad = ~np.isfinite(array)
                if bad.any():
                    where = tuple(int(i) for i in np.argwhere(bad)[0])
                    detail = (
                        f"{role} {name} of picture {index} holds {int(bad.sum())} values that are "
                        f"not finite, the first at {where}"
                    )
                    return Check("finite", False, detail)
    return Check("finite", True, "no NaN and no infinity")


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


def _meaning(
    tolerance: Tolerance, golden: Golden, frames: list[Outputs], heads: list[Outputs]
) -> Check:
    """Masks, classes and scores as an app would read them."""
    got = {name: np.concatenate([f[name] for f in frames]) for name in golden.frame}
    ious = np.concatenate(
        [
            mask_ious(got["mask_logits"], golden.frame["mask_logits"]),
            mask_ious(np.concatenate([h["mask_logits"] for h in heads]), golden.mask_logits),
        ]
    )
    want_scores = scores(golden.frame["class_logits"], golden.frame["objectness_logits"])
    got_scores = scores(got["class_logits"], got["objectness_logits"])
    # A score within the tolerance of the threshold may fall on either side of it.
    unsure = np.abs(want_scores - SCORE_THRESHOLD) <= tolerance.atol + tolerance.rtol
    differ = ((want_scores > SCORE_THRESHOLD) != (got_scores > SCORE_THRESHOLD)) & ~unsure
    figures = {
        "min_mask_iou": float(ious.min()),
        "mean_mask_iou": float(ious.mean()),
        "masks": int(ious.size),
        "instances_above_threshold": int((want_scores > SCORE_THRESHOLD).any(-1).sum()),
        "classes_that_differ": int(differ.sum()),
    }
    if differ.any():
        picture, query, label = (int(i) for i in np.argwhere(differ)[0])
        detail = (
            f"picture {picture}, query {query}, class {label} scores "
            f"{got_scores[picture, query, label]:.4f} instead of "
            f"{want_scores[picture, query, label]:.4f}, on the other side of {SCORE_THRESHOLD}"
        )
        return Check("meaning", False, detail, figures)
    if figures["min_mask_iou"] < tolerance.min_mask_iou:
        worst = tuple(int(i) for i in np.unravel_index(int(ious.argmin()), ious.shape))
        graph = "frame" if worst[0] < len(golden.images) else "mask_head"
        detail = (
            f"{graph} mask {worst[1]} of picture {worst[0] % len(golden.images)} overlaps its "
            f"reference with IoU {ious.min():.4f}, below {tolerance.min_mask_iou}"
        )
        return Check("meaning", False, detail, figures)
    detail = (
        f"lowest mask IoU {ious.min():.6f} of {ious.size} masks, same classes above "
        f"{SCORE_THRESHOLD} ({figures['instances_above_threshold']} instances)"
    )
    return Check("meaning", True, detail, figures)


def _pair_contract(
    bundle: ExportBundle, runner: GraphRunner, golden: Golden, frames: list[Outputs]
) -> Check:
    """The frame graph's kernels, fed to the mask head on the same picture, give its own masks."""
    keys = sorted(set(golden.keyframe.tolist()))
    heads = _run(runner, [_head_call(golden, k, frames[k]["kernels"]) for k in keys])
    want = np.concatenate([frames[k]["mask_logits"] for k in keys])
    got = np.concatenate([h["mask_logits"] for h in heads])
    parity = compare_tensor("mask_head", "mask_logits", got, want, bundle.tolerance)
    figures = {"max_abs": parity.max_abs, "keyframes": len(keys)}
    if parity.passed:
        detail = f"both graphs give the same masks within {parity.max_abs:.2e}"
        return Check("pair contract", True, detail, figures)
    detail = (
        f"on keyframe {keys[parity.worst[0]]} the two graphs' masks differ by up to "
        f"{parity.max_abs:.3g} at position {parity.worst[1:]}"
    )
    return Check("pair contract", False, detail, figures)


def _live_kernels(
    bundle: ExportBundle, runner: GraphRunner, golden: Golden, heads: list[Outputs]
) -> Check:
    """A mask does not depend on which other kernels are passed with its own."""
    if all(isinstance(v, int) for t in bundle.graphs["mask_head"].spec.inputs for v in t.shape):
        return Check("live kernels", True, "the number of kernels is fixed in this export")
    n = bundle.config.num_queries
    chosen = sorted({n - 1, *range(0, n, 3)})
    subsets = [chosen, chosen[-1:]]
    runs = _run(
        runner,
        [_head_call(golden, 0, np.ascontiguousarray(golden.kernels(0)[:, s])) for s in subsets],
    )
    worst = 0.0
    for subset, outputs in zip(subsets, runs, strict=True):
        want = heads[0]["mask_logits"][:, subset]
        got = outputs["mask_logits"]
        if got.shape != want.shape:
            detail = f"{len(subset)} kernels gave masks of shape {got.shape}, not {want.shape}"
            return Check("live kernels", False, detail)
        parity = compare_tensor("mask_head", "mask_logits", got, want, bundle.tolerance)
        worst = max(worst, parity.max_abs)
        if not parity.passed:
            detail = (
                f"with {len(subset)} of {n} kernels the masks change by up to {parity.max_abs:.3g}"
            )
            return Check("live kernels", False, detail, {"max_abs": parity.max_abs})
    detail = f"{len(subsets[0])} and 1 of {n} kernels give the same masks within {worst:.2e}"
    return Check("live kernels", True, detail, {"max_abs": worst})


def _sequence(
    bundle: ExportBundle, runner: GraphRunner, golden: Golden, frames: list[Outputs]
) -> Check:
    """Kernels handed from keyframe to reuse frames as in a video; errors must not grow."""
    reuse = [i for i, key in enumerate(golden.keyframe.tolist()) if key != i]
    if not reuse:
        return Check("sequence", True, "one picture alone makes no clip", {"frames": []})
    runs = _run(
        runner,
        [_head_call(golden, i, frames[int(golden.keyframe[i])]["kernels"]) for i in reuse],
    )
    drift = []
    problem = None
    for index, outputs in zip(reuse, runs, strict=True):
        want = golden.mask_logits[index : index + 1]
        got = outputs["mask_logits"]
        parity = compare_tensor("mask_head", "mask_logits", got, want, bundle.tolerance)
        iou = float(mask_ious(got, want).min())
        age = index - int(golden.keyframe[index])
        drift.append({"age": age, "max_abs": parity.max_abs, "min_mask_iou": iou})
        if problem is None and not (parity.passed and iou >= bundle.tolerance.min_mask_iou):
            problem = (
                f"{age} frames after its keyframe, picture {index} differs by up to "
                f"{parity.max_abs:.3g} (lowest mask IoU {iou:.4f})"
            )
    figures = {"frames": drift}
    if problem is not None:
        return Check("sequence", False, problem, figures)
    shown = ", ".join(f"{d['max_abs']:.1e}" for d in drift)
    return Check("sequence", True, f"drift over {len(drift)} reuse frames: {shown}", figures)
