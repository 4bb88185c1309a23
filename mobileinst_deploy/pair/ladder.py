"""The ladder: is the exported pair, where it runs, the network that PyTorch trained?

Every rung answers one question, and a rung that fails says where. Comparisons are with PyTorch in
eval mode on real pictures; the numbers allowed live with the model (its ``tolerance``). Nothing
here needs PyTorch itself: the reference is the bundle's golden data or a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import (
    KERNELS,
    MASK_LOGITS,
    ROLES,
    Call,
    GraphRunner,
    Role,
    is_carried,
)
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import Check, ParityReport, TensorParity
from mobileinst_deploy.core.text import shape_text
from mobileinst_deploy.pair.comparison import compare_tensor
from mobileinst_deploy.pair.instances import instances_check, match_instances, picks_instances
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.output_rungs import (
    Arrays,
    live_kernels,
    meaning,
    pair_contract,
    sequence,
    values,
)
from mobileinst_deploy.pair.static_rungs import static_checks

_OUTPUTS = Check("outputs", True, "every run returned what the graphs declare")


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
    picked: list[Check] = []
    if picks_instances(load_graph(bundle.graphs["frame"].onnx)):
        # From here on the frame graph's instances, and what is carried of them, are by place.
        matched = [
            match_instances(frame, _picture(golden, i), bundle.tolerance)
            for i, frame in enumerate(frames)
        ]
        frames = [picture.outputs for picture in matched]
        picked = [instances_check(matched, bundle.tolerance)]

    own = [golden.inputs("mask_head", i) for i in range(count)]
    keys = golden.keyframe.tolist()
    carried = [
        own[i] | {n: a for n, a in frames[keys[i]].items() if is_carried(n)} for i in range(count)
    ]
    first = golden.kernels(0)
    live = [own[0] | {KERNELS: np.ascontiguousarray(first[:, s])} for s in subsets]
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
    reuse = _stacked(heads[count : 2 * count])[MASK_LOGITS]
    checks = [
        _OUTPUTS,
        Check("finite", True, "no NaN and no infinity"),
        *picked,
        values(tensors),
        meaning(bundle.tolerance, golden, measured),
        pair_contract(bundle.tolerance, golden, measured["frame"][MASK_LOGITS], reuse),
        live_kernels(bundle, subsets, heads[0], heads[2 * count :]),
        sequence(bundle.tolerance, golden, reuse),
    ]
    return checks, tensors


def _run(runner: GraphRunner, role: Role, inputs: Sequence[Arrays]) -> list[Arrays]:
    outputs = runner.outputs([Call(role, i) for i in inputs])
    if len(outputs) != len(inputs):
        raise DeviceError(
            f"{runner.name} answered {len(outputs)} of {len(inputs)} runs of the {role} graph",
            "Run it again",
        )
    return outputs


def _picture(golden: Golden, index: int) -> Arrays:
    """PyTorch's outputs of the frame graph on one picture, (1, ...) each."""
    return {name: value[index : index + 1] for name, value in golden.frame.items()}


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
            got = "nothing" if array is None else f"{array.dtype} {shape_text(array.shape)}"
            detail = (
                f"{role} {spec.name} of picture {picture} came back as {got}, not "
                f"{spec.dtype} {shape_text(spec.shape)}"
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
