"""Eight-bit pairs: cheaper, less exact, and never the paper's protocol.

Static quantisation in ONNX's QDQ form: convolutions with signed 8-bit weights, a scale for each
output channel, and 8-bit activations whose ranges were seen on real pictures. Which convolutions
stay in float32 is decided by measurement: those that a rewriter computes in fewer instructions than
8-bit kernels do, and then as few as it takes, the most harmful first, for the masks to stay what
they were. Every report states the price.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import (
    CLASS_LOGITS,
    IMAGE,
    MASK_LOGITS,
    OBJECTNESS_LOGITS,
    ROLES,
    Role,
    is_carried,
)
from mobileinst_deploy.core.errors import BundleError, MediaError, VerificationFailed
from mobileinst_deploy.core.picture_rules import SCORE_THRESHOLD
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.tracker import class_scores
from mobileinst_deploy.media.letterbox import prepare
from mobileinst_deploy.media.pictures import read_picture
from mobileinst_deploy.media.video import PICTURE_SUFFIXES
from mobileinst_deploy.pair.comparison import mask_ious
from mobileinst_deploy.pair.instances import in_order, picks_instances
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.rewritten import write_derived
from mobileinst_deploy.quantize.price import Price, measure_price
from mobileinst_deploy.runtimes.graph_bounds import require_bounded
from mobileinst_deploy.runtimes.onnxruntime import run_graph

INT8 = "quantize-int8"
#: More pictures than these add minutes and no accuracy.
MOST_PICTURES = 64

_PROBES = 2  # pictures that the order of sensitivity is measured on
_FOLLOWERS = ("Relu", "Clip", "Add", "Concat", "MaxPool", "AveragePool")

Arrays = dict[str, np.ndarray]


class FloatRewriter(Protocol):
    """What can make float32 convolutions cheaper than 8-bit ones."""

    def cheaper_in_float(self, graph: onnx.ModelProto) -> frozenset[str]:
        """Names of the convolutions to leave in float32."""
        ...

    def rewrite(self, graph: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """The graph with those convolutions rewritten, and the names of what was done."""
        ...


@dataclass(frozen=True)
class QuantizeReport:
    """What quantisation did.

    Attributes:
        calibration: Pictures that ranges and sensitivity were measured on.
        held_out: Other pictures, that the masks below are from.
        quantized: Number of 8-bit convolutions in the frame graph.
        rewritten: Convolutions left in float32 because that is cheaper.
        sensitive: Convolutions left in float32 because masks suffered, the most harmful first.
        mask_iou: Mean overlap of instances' masks with those of float32, on the held-out pictures.
        worst_mask_iou: The tenth percentile of the same.
        masks: How many masks these are.
        score_change: Largest change of a class score.
        before: The pair that was quantised.
        after: The one that was written.
    """

    calibration: int
    held_out: int
    quantized: int
    rewritten: tuple[str, ...]
    sensitive: tuple[str, ...]
    mask_iou: float
    worst_mask_iou: float
    masks: int
    score_change: float
    before: Price
    after: Price


@places(0)
def read_pictures(folder: Path, size: tuple[int, int]) -> list[np.ndarray]:
    """The pictures of a folder, fitted as in deployment, at most :data:`MOST_PICTURES`.

    Of more than that, every k-th by name is taken.

    Args:
        folder: Of picture files; others in it are passed over.
        size: (height, width) of the graphs' input.

    Returns:
        Each (1, 3, H, W) float32, RGB, 0 to 255.

    Raises:
        MediaError: It is no folder, holds no pictures, or one of them cannot be read.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is not a folder", "Give a folder of pictures")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise MediaError(f"{folder} holds no pictures", "Give a folder of PNG or JPEG files")
    chosen = paths[:: max(1, -(-len(paths) // MOST_PICTURES))]
    return [prepare(read_picture(path), size)[0] for path in chosen]


def quantize_pair(
    bundle: ExportBundle,
    folder: Path,
    pictures: Sequence[np.ndarray],
    *,
    min_mask_iou: float,
    rewriter: FloatRewriter,
    progress: Progress = silent,
) -> tuple[ExportBundle, QuantizeReport]:
    """Write an 8-bit pair.

    Args:
        bundle: A float32 pair as exported.
        folder: Where to write.
        pictures: At least four, each (1, 3, H, W) float32 RGB from 0 to 255; every fourth is held
            out of calibration and decides what is reported.
        min_mask_iou: Mean overlap with float32's masks that must be kept on the calibration
            pictures, in [0, 1].
        rewriter: What makes the float32 convolutions cheap.
        progress: Told of each step.

    Raises:
        BundleError: The pair was optimised or quantised before.
        MediaError: Fewer than four pictures.
        VerificationFailed: The overlap cannot be kept even with every convolution in float32.
        OutputError: The folder cannot be written or holds something else.
    """
    if bundle.optimized:
        raise BundleError(
            f"{bundle.folder} has been through {', '.join(bundle.optimized)} already",
            "Start from the pair that `mobileinst export` wrote",
        )
    if len(pictures) < 4:
        raise MediaError(
            f"{len(pictures)} pictures are too few to calibrate on", "Give a folder of at least 4"
        )
    held_out = list(pictures[3::4])
    seen = [p for i, p in enumerate(pictures) if i % 4 != 3]
    require_bounded(bundle)
    plain = {role: load_graph(bundle.graphs[role].onnx) for role in ROLES}
    progress("quantise: float32 reference", 0, None)
    frame_inputs = [{IMAGE: p} for p in seen]
    wanted = _run(plain["frame"], frame_inputs)
    head_inputs = [
        {IMAGE: p, **{name: array for name, array in w.items() if is_carried(name)}}
        for p, w in zip(seen, wanted, strict=True)
    ]
    frame = _Quantizer(plain["frame"], frame_inputs)
    head = _Quantizer(plain["mask_head"], head_inputs)
    rewritten = rewriter.cheaper_in_float(plain["frame"])
    candidates = [name for name in frame.convolutions if name not in rewritten]
    sensitive = _search(frame, candidates, rewritten, seen, wanted, min_mask_iou, progress)

    progress("quantise: write", 0, None)
    graphs: dict[Role, onnx.ModelProto] = {}
    # In order, each once: a graph may need a pass that the other does not.
    steps: dict[str, None] = {}
    quantizers: dict[Role, _Quantizer] = {"frame": frame, "mask_head": head}
    for role, quantizer in quantizers.items():
        graphs[role], done = rewriter.rewrite(quantizer.build(rewritten | set(sensitive)))
        steps |= dict.fromkeys(done)
    derived = write_derived(bundle, folder, graphs, (INT8, *steps))

    reference = _run(plain["frame"], [{IMAGE: p} for p in held_out])
    frames = frame.run(graphs["frame"], [{IMAGE: p} for p in held_out], reference)
    overlaps = _overlaps(frames, reference)
    change = max(
        float(np.abs(_scores(got) - _scores(want)).max())
        for got, want in zip(frames, reference, strict=True)
    )
    report = QuantizeReport(
        calibration=len(seen),
        held_out=len(held_out),
        quantized=len(candidates) - len(sensitive),
        rewritten=tuple(name for name in frame.convolutions if name in rewritten),
        sensitive=tuple(sensitive),
        mask_iou=float(overlaps.mean()),
        worst_mask_iou=float(np.percentile(overlaps, 10)),
        masks=len(overlaps),
        score_change=change,
        before=measure_price(bundle),
        after=measure_price(derived),
    )
    return derived, report


class _Quantizer:
    """One graph, the ranges of its tensors, and its 8-bit forms.

    Args:
        graph: In float32; its nodes have names.
        inputs: What to run it on to see the ranges.
    """

    def __init__(self, graph: onnx.ModelProto, inputs: Sequence[Arrays]) -> None:
        self._graph = graph
        for number, node in enumerate(graph.graph.node):
            node.name = node.name or f"node_{number}"
        self.convolutions = [n.name for n in graph.graph.node if n.op_type == "Conv"]
        self._ranges = _ranges(graph, inputs)

    def build(self, in_float: Iterable[str]) -> onnx.ModelProto:
        """The graph with all convolutions in 8 bits but those named."""
        keep = set(in_float)
        nodes = self._reached([name for name in self.convolutions if name not in keep])
        graph = onnx.ModelProto()
        graph.CopyFrom(self._graph)
        if not nodes:
            return graph
        quantizer = QDQQuantizer(
            graph,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, dict(self._ranges)),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", *_FOLLOWERS],
            extra_options={},
        )
        quantizer.quantize_model()
        # It appends what it adds; a valid graph has every node after those it reads.
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        return quantized

    def build_alone(self, name: str) -> onnx.ModelProto:
        """The graph with one convolution in 8 bits."""
        return self.build(other for other in self.convolutions if other != name)

    def run(
        self, graph: onnx.ModelProto, inputs: Sequence[Arrays], wanted: Sequence[Arrays]
    ) -> list[Arrays]:
        """Outputs of a form of the frame graph; its instances in the order of those wanted."""
        got = _run(graph, inputs)
        if not picks_instances(self._graph):
            return got
        return [in_order(mine, theirs) for mine, theirs in zip(got, wanted, strict=True)]

    def _reached(self, convolutions: list[str]) -> list[str]:
        """These convolutions, and the nodes that read nothing but what is 8-bit by them."""
        constants = {t.name for t in self._graph.graph.initializer}
        chosen, tensors = list(convolutions), set[str]()
        wanted = set(convolutions)
        for node in self._graph.graph.node:
            reads = [name for name in node.input if name and name not in constants]
            follows = node.op_type in _FOLLOWERS and reads and set(reads) <= tensors
            if node.name in wanted or follows:
                tensors.update(node.output)
                if follows:
                    chosen.append(node.name)
        return chosen


def _search(
    frame: _Quantizer,
    candidates: list[str],
    rewritten: frozenset[str],
    pictures: Sequence[np.ndarray],
    wanted: Sequence[Arrays],
    min_mask_iou: float,
    progress: Progress,
) -> list[str]:
    """The fewest convolutions to leave in float32, of those ordered by the harm they do alone."""
    inputs = [{IMAGE: p} for p in pictures]

    def overlap(in_float: Sequence[str]) -> float:
        graph = frame.build(rewritten | set(in_float))
        return float(_overlaps(frame.run(graph, inputs, wanted), wanted).mean())

    if overlap([]) >= min_mask_iou:
        return []
    harm = {}
    for done, name in enumerate(candidates):
        progress("quantise: sensitivity", done, len(candidates))
        got = frame.run(frame.build_alone(name), inputs[:_PROBES], wanted[:_PROBES])
        harm[name] = _error(got, wanted[:_PROBES])
    progress("quantise: sensitivity", len(candidates), len(candidates))
    order = sorted(candidates, key=lambda name: -harm[name])
    enough, too_few = len(order), 0
    while enough - too_few > 1:
        progress("quantise: search", len(order) - (enough - too_few), len(order))
        middle = (enough + too_few) // 2
        if overlap(order[:middle]) >= min_mask_iou:
            enough = middle
        else:
            too_few = middle
    if overlap(order[:enough]) < min_mask_iou:
        raise VerificationFailed(
            f"masks overlap those of float32 by less than {min_mask_iou} whatever stays in float32",
            "Give other pictures or a lower --mask-iou",
        )
    return order[:enough]


def _ranges(graph: onnx.ModelProto, inputs: Sequence[Arrays]) -> dict[str, TensorData]:
    """The smallest and largest value that each float tensor takes."""
    whole = onnx.ModelProto()
    whole.CopyFrom(onnx.shape_inference.infer_shapes(graph))
    present = {output.name for output in whole.graph.output}
    for info in list(whole.graph.value_info):
        is_float = info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        if is_float and info.name not in present:
            whole.graph.output.append(info)
    names = [output.name for output in whole.graph.output]
    runs = run_graph(whole.SerializeToString(), names, inputs, optimize=False)
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    for feed, outputs in zip(inputs, runs, strict=True):
        for name, value in (outputs | feed).items():
            if value.size:
                lowest[name] = min(lowest.get(name, 0.0), float(value.min()))
                highest[name] = max(highest.get(name, 0.0), float(value.max()))
    return {
        name: TensorData(lowest=np.float32(lowest[name]), highest=np.float32(highest[name]))
        for name in lowest
    }


def _run(graph: onnx.ModelProto, inputs: Sequence[Arrays]) -> list[Arrays]:
    names = [output.name for output in graph.graph.output]
    return list(run_graph(graph.SerializeToString(), names, inputs))


def _scores(outputs: Arrays) -> np.ndarray:
    return class_scores(outputs[CLASS_LOGITS], outputs[OBJECTNESS_LOGITS])


def _overlaps(got: Sequence[Arrays], want: Sequence[Arrays]) -> np.ndarray:
    """IoU of the masks that an app would show: scores above the threshold, or the best one."""
    found = []
    for a, b in zip(got, want, strict=True):
        best = _scores(b).max(-1)
        shown = (best > SCORE_THRESHOLD) | (best == best.max())
        found.append(mask_ious(a[MASK_LOGITS], b[MASK_LOGITS])[shown])
    return np.concatenate(found)


def _error(got: Sequence[Arrays], want: Sequence[Arrays]) -> float:
    """Error of the mask logits relative to their spread."""
    parts = [
        float(np.sqrt(np.mean((a[MASK_LOGITS] - b[MASK_LOGITS]) ** 2)) / b[MASK_LOGITS].std())
        for a, b in zip(got, want, strict=True)
    ]
    return statistics.fmean(parts)
