"""The rungs of the ladder that compare what graphs gave: values, meaning, and the use in a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.contract import (
    CLASS_LOGITS,
    MASK_LOGITS,
    OBJECTNESS_LOGITS,
    ROLES,
    Role,
)
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.core.picture_rules import SCORE_THRESHOLD
from mobileinst_deploy.core.records import Check, TensorParity
from mobileinst_deploy.core.text import shape_text
from mobileinst_deploy.core.tracker import class_scores
from mobileinst_deploy.pair.comparison import compare_tensor, mask_ious

Arrays = dict[str, np.ndarray]


def values(tensors: list[TensorParity]) -> Check:
    """Every output of every run is its reference within the tolerance."""
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


def meaning(tolerance: Tolerance, golden: Golden, measured: Mapping[Role, Arrays]) -> Check:
    """Masks, classes and scores as an app would read them."""
    masks = [
        (role, measured[role][MASK_LOGITS], golden.outputs(role)[MASK_LOGITS]) for role in ROLES
    ]
    edges = tolerance.edge_logit
    ious = np.stack([mask_ious(got, want, edges) for _, got, want in masks])
    strict = np.stack([mask_ious(got, want, edge=0) for _, got, want in masks])
    want_scores = class_scores(golden.frame[CLASS_LOGITS], golden.frame[OBJECTNESS_LOGITS])
    frame = measured["frame"]
    got_scores = class_scores(frame[CLASS_LOGITS], frame[OBJECTNESS_LOGITS])
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


def pair_contract(
    tolerance: Tolerance, golden: Golden, frame: np.ndarray, reuse: np.ndarray
) -> Check:
    """The frame graph's kernels, fed to the mask head on the same picture, give its own masks."""
    keys = sorted(set(golden.keyframe.tolist()))
    parity = compare_tensor("mask_head", MASK_LOGITS, reuse[keys], frame[keys], tolerance)
    figures = {"max_abs": parity.max_abs, "keyframes": len(keys)}
    if parity.passed:
        detail = f"both graphs give the same masks within {parity.max_abs:.2e}"
        return Check("pair contract", True, detail, figures)
    detail = (
        f"on keyframe {keys[parity.worst[0]]} the two graphs' mask_logits differ by up to "
        f"{parity.max_abs:.3g} at position {parity.worst[1:]}"
    )
    return Check("pair contract", False, detail, figures)


def live_kernels(
    bundle: ExportBundle, subsets: list[list[int]], whole: Arrays, live: Sequence[Arrays]
) -> Check:
    """A mask does not depend on which other kernels are passed with its own."""
    if not subsets:
        return Check("live kernels", True, "the number of kernels is fixed in this export")
    n = bundle.config.num_queries
    worst = 0.0
    for subset, outputs in zip(subsets, live, strict=True):
        want = whole[MASK_LOGITS][:, subset]
        got = outputs[MASK_LOGITS]
        if got.shape != want.shape:
            detail = (
                f"{len(subset)} kernels gave mask_logits of shape {shape_text(got.shape)}, not "
                f"{shape_text(want.shape)}"
            )
            return Check("live kernels", False, detail)
        parity = compare_tensor("mask_head", MASK_LOGITS, got, want, bundle.tolerance)
        worst = max(worst, parity.max_abs)
        if not parity.passed:
            detail = (
                f"with {len(subset)} of {n} kernels mask_logits change by up to "
                f"{parity.max_abs:.3g} at position {parity.worst[1:]}"
            )
            return Check("live kernels", False, detail, {"max_abs": worst})
    detail = f"{len(subsets[0])} and 1 of {n} kernels give the same masks within {worst:.2e}"
    return Check("live kernels", True, detail, {"max_abs": worst})


def sequence(tolerance: Tolerance, golden: Golden, reuse: np.ndarray) -> Check:
    """Kernels handed from keyframe to reuse frames as in a video; errors must not grow."""
    drift = []
    problem = None
    for index, key in enumerate(golden.keyframe.tolist()):
        if key == index:
            continue
        got, want = reuse[index : index + 1], golden.mask_logits[index : index + 1]
        parity = compare_tensor("mask_head", MASK_LOGITS, got, want, tolerance)
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
