#!/usr/bin/env python3
"""Measure ncnn's 8-bit convolutions beside its half precision: instructions, scores, masks.

    scripts/ncnn_int8.py PAIR FOLDER --pictures D     prints a table; networks go to FOLDER

Says why ncnn's int8 is no form of a pair. Every convolution gets a scale per output channel (ncnn
rounds the weights itself when it loads them) and one for its input, by three quarters of the
pictures: the largest value (max), or what makes clipping and rounding err least (mse). One whose
result other convolutions alone take hands it on in 8 bits. The rest is computed in half precision.
Compared is with float32 on the last quarter. ARM code under qemu, with 8-bit dot products
(ARMv8.2); the runner is built in FOLDER, once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, GraphFile, load_bundle
from mobileinst_deploy.core.content import read_content
from mobileinst_deploy.core.contract import (
    CLASS_LOGITS,
    IMAGE,
    KERNELS,
    MASK_LOGITS,
    OBJECTNESS_LOGITS,
    Call,
    Role,
    Tensors,
)
from mobileinst_deploy.core.errors import MobileInstError
from mobileinst_deploy.core.picture_rules import SCORE_THRESHOLD
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.core.tracker import class_scores
from mobileinst_deploy.pair.comparison import mask_ious
from mobileinst_deploy.phone import ncnn_build
from mobileinst_deploy.phone.device_bundle import DeviceBundle, default_cache
from mobileinst_deploy.quantize import read_pictures
from mobileinst_deploy.runtimes import for_device
from mobileinst_deploy.runtimes.ncnn.host import NcnnRunner
from mobileinst_deploy.runtimes.ncnn.network import Layer, read_param, weights_of
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner

#: What ncnn puts around 8-bit convolutions.
LAYERS = ("Quantize", "Dequantize", "Requantize")
#: Steps of 8 bits with a sign.
STEPS = 127
_BINS = 2048
#: ncnn's number of the parameter that says where a layer's scales are, and what it adds where the
#: result has one too.
_SCALES, _AND_OF_THE_RESULT = 8, 100
#: For each kind that is quantized: what the parameter is with a scale per channel or group.
_KINDS = {"Convolution": 2, "ConvolutionDepthWise": 1}


@dataclass(frozen=True)
class Form:
    """One way to compute in 8 bits.

    Attributes:
        rule: Which of an input's values becomes 127: ``max`` or ``mse``.
        kinds: Which layers do.
    """

    rule: str
    kinds: tuple[str, ...]


FORMS = {
    "int8 max": Form("max", tuple(_KINDS)),
    "int8 mse": Form("mse", tuple(_KINDS)),
    "int8 mse but for depthwise": Form("mse", ("Convolution",)),
}


@dataclass
class Seen:
    """The absolute values of one blob over all pictures.

    Attributes:
        highest: The largest.
        histogram: How many lie in each of :data:`_BINS` equal parts up to it.
    """

    highest: float = 0.0
    histogram: np.ndarray | None = None

    def reach(self, rule: str) -> float:
        """The value that becomes 127."""
        if rule == "max" or self.histogram is None or not self.highest:
            return self.highest or 1.0  # of nothing but zeros: any scale will do
        middles = (np.arange(_BINS) + 0.5) * self.highest / _BINS
        reaches = middles[_BINS // 16 :: 8]
        lost = (np.where(middles > r, (middles - r) ** 2, (r / STEPS) ** 2 / 12) for r in reaches)
        errors = [(self.histogram * each).sum() for each in lost]
        return float(reaches[int(np.argmin(errors))])


def convolutions(layers: Sequence[Layer]) -> list[Layer]:
    """What is quantized."""
    return [layer for layer in layers if layer.kind in _KINDS]


def calibrate(runner: NcnnRunner, role: Role, calls: Sequence[Tensors]) -> dict[str, Seen]:
    """What each convolution's input reaches, by the blob's name."""
    ncnn: Any = importlib.import_module("ncnn")
    network = runner.load(role)
    layers = read_param(runner.bundle.graphs[role].files[0])
    blobs = {layer.inputs[0] for layer in convolutions(layers)}
    seen = {blob: Seen() for blob in blobs}
    for again in (False, True):
        for inputs in calls:
            extractor = network.create_extractor()
            # Otherwise a blob is gone once it was read, and is computed anew when asked for.
            extractor.set_light_mode(False)
            given = {name: np.ascontiguousarray(array[0]) for name, array in inputs.items()}
            for name, array in given.items():
                extractor.input(name, ncnn.Mat(array))
            for blob in blobs:
                status, mat = extractor.extract(blob)
                if status != 0:
                    raise SystemExit(f"ncnn does not give {blob}")
                values = np.abs(np.array(mat))
                of = seen[blob]
                if again:
                    counts, _ = np.histogram(values, _BINS, (0, max(of.highest, 1e-9)))
                    of.histogram = counts if of.histogram is None else of.histogram + counts
                else:
                    of.highest = max(of.highest, float(values.max()))
    return seen


def handed_on(layers: Sequence[Layer], kinds: Sequence[str]) -> dict[str, str]:
    """Blobs that 8-bit convolutions alone take, by way of splits too: one of those that take it."""
    takers: dict[str, list[Layer]] = {}
    for layer in layers:
        for blob in layer.inputs:
            takers.setdefault(blob, []).append(layer)

    def last(blob: str) -> Iterator[tuple[Layer | None, str]]:
        for layer in takers.get(blob, []):
            if layer.kind == "Split":
                for output in layer.outputs:
                    yield from last(output)
            else:
                yield layer, blob
        if not takers.get(blob):
            yield None, blob

    found = {}
    for layer in convolutions(layers):
        ends = list(last(layer.outputs[0]))
        if all(end is not None and end.kind in kinds for end, _ in ends):
            found[layer.outputs[0]] = ends[0][1]
    return found


def quantized(graph: GraphFile, seen: Mapping[str, Seen], form: Form, folder: Path) -> GraphFile:
    """The same network with scales, written beside each other."""
    param, weights = graph.files
    layers = read_param(param)
    on = handed_on(layers, form.kinds)
    lines = param.data.decode().splitlines()
    parts, at = [], 0
    for number, layer in enumerate(layers, start=2):
        start = at
        for flagged, elements in weights_of(layer):
            at += 4 * (elements + flagged)
        parts.append(weights.data[start:at])
        if layer.kind not in form.kinds:
            continue
        groups = layer.whole(7, 1) if layer.kind == "ConvolutionDepthWise" else layer.whole(0)
        # Behind the format's flag.
        values = np.frombuffer(weights.data, np.float32, layer.whole(6), start + 4)
        largest = np.abs(values.reshape(groups, -1)).max(1)
        scales = [
            *(STEPS / np.maximum(largest, 1e-9)),
            STEPS / seen[layer.inputs[0]].reach(form.rule),
        ]
        term = _KINDS[layer.kind]
        if layer.outputs[0] in on:
            term += _AND_OF_THE_RESULT
            scales.append(STEPS / seen[on[layer.outputs[0]]].reach(form.rule))
        parts.append(np.array(scales, np.float32).tobytes())
        lines[number] += f" {_SCALES}={term}"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / param.path.name, folder / weights.path.name
    made[0].write_text("\n".join(lines) + "\n", encoding="utf-8")
    made[1].write_bytes(b"".join(parts))
    return replace(graph, files=tuple(read_content(path) for path in made))


def built(folder: Path) -> DeviceBundle:
    """The runner with 8 bits beside half precision."""
    if not folder.exists():
        archive = ncnn_build.fetch_source(default_cache(), force=False)
        with scratch_folder() as scratch:
            made = scratch / "made"
            made.mkdir()
            ncnn_build.build_runner(archive, "ncnn-fp16", made, scratch, LAYERS, int8=True)
            folder.mkdir(parents=True)
            runner = folder / ncnn_build.RUNNERS["ncnn-fp16"]
            runner.write_bytes((made / runner.name).read_bytes())
            runner.chmod(0o755)
    return DeviceBundle(folder, (), "", "ncnn-fp16", ncnn_build.VERSION, "")


def scores(outputs: Tensors) -> np.ndarray:
    """(N, C)."""
    found: np.ndarray = class_scores(outputs[CLASS_LOGITS], outputs[OBJECTNESS_LOGITS])[0]
    return found


def held_against(got: Sequence[Tensors], want: Sequence[Tensors]) -> dict[str, float]:
    """How far scores move, how many decisions change, and how masks that are shown overlap."""
    moved = max(float(np.abs(scores(a) - scores(b)).max()) for a, b in zip(got, want, strict=True))
    overlaps, changed, shown = [], 0, 0
    for a, b in zip(got, want, strict=True):
        above = scores(b) > SCORE_THRESHOLD
        changed += int((above != (scores(a) > SCORE_THRESHOLD)).sum())
        which = above.any(-1)
        shown += int(which.sum())
        overlaps.append(mask_ious(a[MASK_LOGITS], b[MASK_LOGITS])[0][which])
    ious = np.concatenate(overlaps)
    return {
        "moved": moved,
        "changed": changed,
        "shown": shown,
        "mean": float(ious.mean()) if len(ious) else float("nan"),
        "lowest": float(ious.min()) if len(ious) else float("nan"),
    }


def measure(runner: QemuRunner, image: np.ndarray, kernels: np.ndarray) -> dict[Role, int]:
    """Executed ARM instructions of each graph, in the first run after loading."""
    counted = runner.count_instructions(image, kernels, warmups=0, repeats=1)
    return {role: each.count for role, each in counted.items()}


def table(pair: ExportBundle, folder: Path, pictures: Sequence[np.ndarray]) -> Iterator[str]:
    """The table's lines, each as soon as it is known."""
    held_out = len(pictures) - max(1, len(pictures) // 4)
    seen_pictures, others = pictures[:held_out], pictures[held_out:]
    want = CpuRunner(pair).outputs([Call("frame", {IMAGE: image}) for image in pictures])
    first = others[0], want[held_out][KERNELS]
    taken, half = for_device(pair, "ncnn-fp16")
    here = NcnnRunner(taken)
    frames = [{IMAGE: image} for image in seen_pictures]
    heads = [{IMAGE: i, KERNELS: w[KERNELS]} for i, w in zip(seen_pictures, want, strict=False)]
    seen = {"frame": calibrate(here, "frame", frames)}
    seen["mask_head"] = calibrate(here, "mask_head", heads)
    yield f"{len(seen_pictures)} pictures to calibrate on, {len(others)} to compare on."
    columns = ["form", "frame", "mask_head", "scores move by", "decisions that flip", "masks"]
    yield f"| {' | '.join([*columns, 'mean IoU', 'lowest'])} |"
    yield "|---|---|---|---|---|---|---|---|"
    runners: dict[str, Any] = {"ncnn-fp16": QemuRunner(taken, half)}
    for name, form in FORMS.items():
        graphs: dict[Role, GraphFile] = {
            role: quantized(graph, seen[role], form, folder / name.replace(" ", "-"))
            for role, graph in taken.graphs.items()
        }
        runners[name] = QemuRunner(replace(taken, graphs=graphs), built(folder / "runner"))
    for name, runner in runners.items():
        got = runner.outputs([Call("frame", {IMAGE: image}) for image in others])
        told = held_against(got, want[held_out:])
        counts = measure(runner, *first)
        yield (
            f"| {name} | {counts['frame'] / 1e6:,.2f} M | {counts['mask_head'] / 1e6:,.2f} M "
            f"| {told['moved']:.3f} | {told['changed']} | {told['shown']} | {told['mean']:.3f} "
            f"| {told['lowest']:.3f} |"
        )


def main() -> int:
    """Measure; the exit code is that of the command line's errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pair", type=Path, help="as exported")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path, required=True)
    options = parser.parse_args()
    try:
        pair = load_bundle(options.pair)
        pictures = read_pictures(options.pictures, pair.config.input_size)
        for line in table(pair, options.folder, pictures):
            print(line, flush=True)
    except MobileInstError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
