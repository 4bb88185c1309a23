"""Prove an exported pair equal to PyTorch, and keep the proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.contract import GraphRunner, Role
from mobileinst_deploy.core.errors import VerificationFailed
from mobileinst_deploy.core.golden import Golden
from mobileinst_deploy.core.picture_rules import SCORE_THRESHOLD
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import ParityReport
from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.core.tracker import TrackSettings, settings_of
from mobileinst_deploy.core.user_code import printing_aside
from mobileinst_deploy.media.clip import Clip
from mobileinst_deploy.media.letterbox import prepare
from mobileinst_deploy.media.pictures import user_clip
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.pair.clip_gate import verify_clip
from mobileinst_deploy.pair.instances import picks_instances
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.pair.locate import Divergence, first_divergence, suspects
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.runtimes import as_computed, known_runtime, open_runner
from mobileinst_deploy.runtimes.device import DeviceRunner
from mobileinst_deploy.runtimes.track_loop import DeviceLoop
from mobileinst_deploy.workflows.results import Kept, Place, pair_place

if TYPE_CHECKING:
    # PyTorch takes seconds to load, and a pair is checked without it.
    from mobileinst_deploy.network.loading import LoadedModel

AT_EXPORT = "PyTorch, at the export"
NOTHING_RAN = "there is no node to locate: nothing was run, as the graphs' borders differ"
RUNTIME_DIFFERS = (
    "on this machine, node by node, both graphs agree with a fresh export: the difference arises "
    "in the runtime that ran them"
)


@dataclass(frozen=True)
class Located:
    """The first node of a pair that differs from a fresh export.

    Attributes:
        graph: The graph that it is in.
        picture: Index of the picture that shows it.
        divergence: Which node, and by how much.
    """

    graph: Role
    picture: int
    divergence: Divergence


@dataclass(frozen=True)
class Verified:
    """The verdict on a pair.

    Attributes:
        folder: The pair's.
        report: The ladder.
        kept: What became of ``parity.json``.
        located: The first node that differs, where that was asked for and found.
        not_located: Why none was found, where that was asked for and the ladder failed.
    """

    folder: Path
    report: ParityReport
    kept: Kept
    located: Located | None = None
    not_located: str | None = None

    @property
    def failure(self) -> VerificationFailed | None:
        """The lowest rung that did not hold, as an error; None when all did."""
        failed = self.report.first_failure
        if failed is None:
            return None
        return VerificationFailed(
            f"rung '{failed.rung}' failed: {failed.detail}",
            f"Do not deploy {self.folder}; `mobileinst verify {self.folder} --locate` names the "
            "first node that differs",
        )

    @property
    def first_divergence(self) -> dict[str, Any] | None:
        """The node as JSON."""
        if self.located is None:
            return None
        where = {"graph": self.located.graph, "picture": self.located.picture}
        return {**where, **asdict(self.located.divergence)}


@printing_aside()
def verify(
    folder: str | Path,
    *,
    weights: str | Path | None = None,
    network: str | None = None,
    images: Sequence[str | Path] = (),
    clip: str | None = None,
    clip_length: str = "3",
    association: str = "remembering",
    frames: int | None = None,
    device: str = "cpu",
    serial: str | None = None,
    runtime: str = "onnxruntime",
    locate: bool = False,
    report: str | Path | None = None,
    progress: Progress = silent,
) -> Verified:
    """Climb the parity ladder with an exported pair, and keep ``parity.json``.

    Args:
        folder: The pair's.
        weights: The checkpoint that it was exported from; the reference is then computed anew.
        network: ``package.module:factory`` of the pair's network, where that is no code of this
            package; it is imported and run, and never by what the manifest names.
        images: The user's own pictures as one clip, in place of the golden ones.
        clip: A video or a folder of pictures to follow as well.
        clip_length: With ``clip``: T, or ``auto``.
        association: With ``clip``: ``remembering``, or the paper's ``consecutive``.
        frames: With ``clip``: only so many of its first frames.
        device: Where the graphs run: ``cpu``, ``adb`` or ``qemu``.
        serial: Which phone.
        runtime: What runs the graphs.
        locate: On failure, look for the first node that differs.
        report: Where ``parity.json`` goes; by default under the pair.
        progress: Told of each step.

    Raises:
        InputError: Something that was handed over cannot be used.
        DeviceError: The device is missing or failed.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> verified = mobileinst.verify("pair")
        >>> verified.report.passed, verified.failure
        (True, None)
        >>> [check.rung for check in verified.report.checks][:3]
        ['pair', 'names', 'dtypes']
        >>> verified.kept.path.as_posix()
        'pair/results/cpu-onnxruntime-plain/parity.json'
    """
    folder, weights = Path(folder), None if weights is None else Path(weights)
    where = None if report is None else Path(report)
    known_runtime(runtime)
    bundle = as_computed(load_bundle(folder), runtime)
    place = pair_place("parity", bundle, device, runtime, where)
    place.check()
    schedule = parse_schedule(clip_length)
    # Untrained scores are low; there, every query that shows anything is to be followed.
    settings = settings_of(association, SCORE_THRESHOLD if bundle.trained else 0.0)
    opened = None if clip is None else open_clip(clip)
    golden, reference = load_golden(bundle), AT_EXPORT
    if weights is not None or images:
        from mobileinst_deploy.runtimes.pytorch import make_golden
        from mobileinst_deploy.workflows.source import source_of

        source = source_of(bundle, weights, network)
        pictures = (golden.images, golden.keyframe)
        if images:
            pictures = user_clip([Path(image) for image in images], bundle.config.input_size)
        golden = make_golden(source.model, *pictures)
        reference = "PyTorch, computed now" + (f" on {len(images)} given pictures" * bool(images))
    with open_runner(bundle, device, runtime, serial=serial, progress=progress) as runner:
        place = pair_place("parity", bundle, runner.name, runner.runtime, where)
        parity = verify_bundle(bundle, runner, golden, reference=reference, progress=progress)
        if opened is not None and parity.passed:
            # What was found so far is kept: a clip may take long, and be interrupted.
            place.keep(parity.to_dict())
            from mobileinst_deploy.workflows.source import source_of

            source = source_of(bundle, weights, network)
            parity = _follow(
                *(bundle, runner, source, parity, opened, schedule, settings, frames), progress
            )
    verified = Verified(folder, parity, place.keep(parity.to_dict()))
    if locate and not parity.passed:
        return _locate(bundle, golden, weights, network, verified)
    return verified


def climb(
    bundle: ExportBundle, runner: GraphRunner, reference: str, place: Place, progress: Progress
) -> Verified:
    """Climb the ladder with a pair's own golden data, and keep the proof."""
    golden = load_golden(bundle)
    parity = verify_bundle(bundle, runner, golden, reference=reference, progress=progress)
    return Verified(bundle.folder, parity, place.keep(parity.to_dict()))


def _follow(
    bundle: ExportBundle,
    runner: GraphRunner,
    source: LoadedModel,
    report: ParityReport,
    clip: Clip,
    schedule: Any,
    settings: TrackSettings,
    frames: int | None,
    progress: Progress,
) -> ParityReport:
    """The report with the rung of the sequence gate added."""
    from mobileinst_deploy.runtimes.pytorch import TorchRunner

    def images() -> Iterator[np.ndarray]:
        for picture in islice(clip, frames):
            yield prepare(picture.pixels, bundle.config.input_size)[0]

    loop = None
    if isinstance(runner, DeviceRunner):
        loop = DeviceLoop(bundle, runner, schedule, settings, logits=True)
    check = verify_clip(
        TorchRunner(source.model),
        runner,
        images,
        schedule,
        settings,
        bundle.tolerance,
        follow=loop.track if loop is not None else None,
        picks=picks_instances(load_graph(bundle.graphs["frame"].onnx)),
        progress=progress,
    )
    return replace(report, checks=(*report.checks, check))


def _locate(
    bundle: ExportBundle,
    golden: Golden,
    weights: Path | None,
    network: str | None,
    verified: Verified,
) -> Verified:
    """The verdict with the first node that differs, or with why there is none."""
    if not any(check.rung == "outputs" for check in verified.report.checks):
        return replace(verified, not_located=NOTHING_RAN)
    from mobileinst_deploy.pair.tracing import trace_pair
    from mobileinst_deploy.workflows.source import source_of

    source = source_of(bundle, weights, network)
    specs = {role: graph.spec for role, graph in bundle.graphs.items()}
    opset = bundle.graphs["frame"].opset
    references = trace_pair(source.model, specs, golden.image(0), opset)
    for role, picture in suspects(verified.report):
        feeds = golden.inputs(role, picture)
        graph = load_graph(bundle.graphs[role].onnx)
        found = first_divergence(graph, references[role], feeds, bundle.tolerance)
        if found is not None:
            return replace(verified, located=Located(role, picture, found))
    return replace(verified, not_located=RUNTIME_DIFFERS)
