"""models, export, verify and inspect: from a checkpoint to a verified pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobileinst_deploy.cli.console import people, print_json, progress_bar
from mobileinst_deploy.cli.optimize import rewrite_pair
from mobileinst_deploy.cli.options import DeviceName, Json, PairFolder, RuntimeName, Serial
from mobileinst_deploy.cli.runners import pair_runner
from mobileinst_deploy.core.errors import ConfigError, VerificationFailed

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.core.contract import GraphRunner
    from mobileinst_deploy.core.golden import Golden
    from mobileinst_deploy.core.records import ParityReport
    from mobileinst_deploy.network.loading import LoadedModel

Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Checkpoint to use instead of the model's own weights."),
]


Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="PACKAGE.MODULE:FACTORY",
        help="A kernel network of your own code, which is imported and run.",
    ),
]


def models(
    peers: Annotated[
        bool, typer.Option("--peers", help="List the paper's Tables 1 and 2 instead.")
    ] = False,
    json: Json = False,
) -> None:
    """List the model zoo: what each model is, costs, and whether it has trained weights."""
    from mobileinst_deploy.cli.tables import models_table, peer_rows, peers_table, zoo_rows

    rows = peer_rows() if peers else zoo_rows()
    if json:
        print_json({"peers" if peers else "models": rows})
    elif not peers:
        people.print(models_table(rows))
    else:
        people.print(peers_table(rows))
        for row in rows:
            if "not_built" in row:
                people.print(f"{row['id']}: not built. {row['not_built']}", markup=False)


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    model: Annotated[
        str | None,
        typer.Argument(
            help="Id of the zoo or a peer, path to a model.toml, or checkpoint with its config."
        ),
    ] = None,
    network: Network = None,
    weights: Weights = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="HEIGHTxWIDTH in multiples of 64, of other networks 32; default: its own."
        ),
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set.")] = 17,
    dynamic_kernels: Annotated[
        bool,
        typer.Option(
            "--dynamic-kernels/--static-kernels",
            help="Let the mask-head graph take any number of kernels, or exactly N.",
        ),
    ] = True,
    simplify: Annotated[
        bool, typer.Option("--simplify/--no-simplify", help="Fold constants and shapes.")
    ] = True,
    optimize: Annotated[
        bool,
        typer.Option("--optimize", help="Also rewrite both graphs, as `mobileinst optimize` does."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Climb the parity ladder afterwards.")
    ] = True,
    json: Json = False,
) -> None:
    """Export a model as a frame graph and a mask-head graph, and prove them equal to PyTorch."""
    from mobileinst_deploy.core.config import SIZE_MULTIPLE, parse_size
    from mobileinst_deploy.core.needs import CELL
    from mobileinst_deploy.network.loading import load_model
    from mobileinst_deploy.network.peers.catalogue import NOT_BUILT, PEERS, load_peer
    from mobileinst_deploy.network.user_network import load_network
    from mobileinst_deploy.pair.export import export_model

    if (model is None) == (network is None):
        raise ConfigError(
            "give either a model or --network" + (", not both" if model else ""),
            "`mobileinst models` lists the zoo",
        )
    pixels = None
    if size is not None:
        own = network is None and model not in PEERS
        pixels = parse_size(size, multiple=SIZE_MULTIPLE if own else CELL)
    with progress_bar() as progress:
        if network is not None:
            source = load_network(network, weights, pixels)
        elif model in PEERS or model in NOT_BUILT:
            source = load_peer(model, weights, pixels)
        else:
            source = load_model(str(model), weights=weights, size=pixels)
        bundle = export_model(
            source,
            output,
            opset=opset,
            dynamic_kernels=dynamic_kernels,
            simplify=simplify,
            progress=progress,
        )
    if optimize:
        bundle, _ = rewrite_pair(bundle, output)
    people.print(
        f"Exported {bundle.model_id} ({bundle.weights_note}) to {output}",
        markup=False,
        soft_wrap=True,
    )
    document: dict[str, Any] = {"folder": str(output), "pair_id": bundle.pair_id}
    if verify:
        from mobileinst_deploy.core.bundle import load_golden
        from mobileinst_deploy.runtimes.onnxruntime import CpuRunner

        report = _climb(bundle, CpuRunner(bundle), load_golden(bundle), "PyTorch, at this export")
        document["parity"] = report.to_dict()
    if json:
        print_json(document)
    if verify:
        _insist(report, output)


def verify(
    folder: PairFolder,
    weights: Weights = None,
    network: Network = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Your own pictures, as one clip: a keyframe, then reuse frames."),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="Also follow a video or a folder of pictures.")
    ] = None,
    clip_length: Annotated[
        str, typer.Option("-T", "--clip-length", help="With --clip: a keyframe every T frames.")
    ] = "3",
    frames: Annotated[
        int | None, typer.Option(min=1, help="With --clip: only so many of its first frames.")
    ] = None,
    device: DeviceName = "cpu",
    serial: Serial = None,
    runtime: RuntimeName = "onnxruntime",
    locate: Annotated[
        bool, typer.Option("--locate", help="On failure, name the first node that differs.")
    ] = False,
    json: Json = False,
) -> None:
    """Prove an exported pair equal to PyTorch, rung by rung; exit 1 when anything is off."""
    from mobileinst_deploy.core.bundle import load_bundle, load_golden

    bundle = load_bundle(folder)
    golden = load_golden(bundle)
    reference = "PyTorch, at the export"
    if weights is not None or image:
        from mobileinst_deploy.media.pictures import user_clip
        from mobileinst_deploy.runtimes.pytorch import make_golden

        source = _source_of(bundle, weights, network)
        pictures = (golden.images, golden.keyframe)
        if image:
            pictures = user_clip(image, bundle.config.input_size)
        golden = make_golden(source.model, *pictures)
        reference = "PyTorch, computed now" + (f" on {len(image)} given pictures" if image else "")
    with pair_runner(bundle, device, serial, runtime) as runner:
        report = _climb(bundle, runner, golden, reference)
        if clip is not None and report.passed:
            report = _follow(bundle, runner, report, weights, network, clip, clip_length, frames)
    found = None
    if locate and not report.passed:
        found = _locate(bundle, golden, weights, network, report)
    if json:
        document = report.to_dict()
        if locate:
            document["first_divergence"] = found
        print_json(document)
    _insist(report, folder)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="An exported pair or a graph.")],
    json: Json = False,
) -> None:
    """Show what is in a pair or an ONNX file: inputs, outputs, operators, parameters, MACs."""
    from mobileinst_deploy.cli.tables import summary_json, summary_table
    from mobileinst_deploy.core.bundle import load_bundle
    from mobileinst_deploy.pair.onnx_file import summarise

    if path.is_dir():
        bundle = load_bundle(path)
        people.print(
            f"{bundle.model_id}, pair {bundle.pair_id}: {bundle.weights_note}", markup=False
        )
        free = {"n": bundle.config.num_queries}
        files = {str(role): graph.path for role, graph in bundle.graphs.items()}
    else:
        free, files = {}, {path.name: path}
    summaries = {name: summarise(file, free) for name, file in files.items()}
    if json:
        print_json({name: summary_json(summary) for name, summary in summaries.items()})
        return
    for name, summary in summaries.items():
        people.print(summary_table(name, summary))


def _climb(
    bundle: ExportBundle, runner: GraphRunner, golden: Golden, reference: str
) -> ParityReport:
    from mobileinst_deploy.cli.tables import parity_table
    from mobileinst_deploy.core.files import write_json
    from mobileinst_deploy.pair.ladder import verify_bundle

    with progress_bar() as progress:
        report = verify_bundle(bundle, runner, golden, reference=reference, progress=progress)
    people.print(parity_table(report))
    write_json(bundle.folder / "parity.json", report.to_dict())
    return report


def _follow(
    bundle: ExportBundle,
    runner: GraphRunner,
    report: ParityReport,
    weights: Path | None,
    network: str | None,
    name: str,
    clip_length: str,
    frames: int | None,
) -> ParityReport:
    """The report with the rung of the sequence gate added."""
    from collections.abc import Iterator
    from dataclasses import replace
    from itertools import islice

    import numpy as np

    from mobileinst_deploy.core.files import write_json
    from mobileinst_deploy.core.schedule import parse_schedule
    from mobileinst_deploy.core.tracker import RunnerModel, TrackSettings
    from mobileinst_deploy.media.letterbox import fit
    from mobileinst_deploy.media.video import open_clip
    from mobileinst_deploy.pair.clip_gate import verify_clip
    from mobileinst_deploy.phone.track_loop import DeviceLoop, PlanRunner
    from mobileinst_deploy.runtimes.pytorch import TorchModel

    source = _source_of(bundle, weights, network)

    def images() -> Iterator[np.ndarray]:
        for picture in islice(open_clip(name), frames):
            fitted, _ = fit(picture.pixels, bundle.config.input_size)
            yield fitted.transpose(2, 0, 1)[None].astype(np.float32)

    # Untrained scores are low; there, every query that shows anything is to be followed.
    settings = TrackSettings() if bundle.trained else TrackSettings(score=0.0)
    specs = {role: graph.spec for role, graph in bundle.graphs.items()}
    schedule = parse_schedule(clip_length)
    loop = None
    if isinstance(runner, PlanRunner):
        loop = DeviceLoop(bundle, runner, schedule, settings, logits=True)
    with progress_bar() as progress:
        check = verify_clip(
            TorchModel(source.model),
            RunnerModel(runner, specs),
            images,
            schedule,
            settings,
            bundle.tolerance,
            follow=loop.track if loop is not None else None,
            progress=progress,
        )
    report = replace(report, checks=(*report.checks, check))
    write_json(bundle.folder / "parity.json", report.to_dict())
    people.print(f"clip {name}: {'ok' if check.passed else 'FAIL'}, {check.detail}", markup=False)
    return report


def _insist(report: ParityReport, folder: Path) -> None:
    failed = report.first_failure
    if failed is not None:
        raise VerificationFailed(
            f"rung '{failed.rung}' failed: {failed.detail}",
            f"Do not deploy {folder}; `mobileinst verify {folder} --locate` names the first "
            "node that differs",
        )


def _source_of(bundle: ExportBundle, weights: Path | None, network: str | None) -> LoadedModel:
    """The network that a bundle was exported from, rebuilt at the bundle's configuration."""
    from mobileinst_deploy.core.needs import Needs
    from mobileinst_deploy.core.zoo import zoo_ids
    from mobileinst_deploy.network.loading import build_loaded, load_model
    from mobileinst_deploy.network.peers.catalogue import PEERS, load_peer
    from mobileinst_deploy.network.user_network import load_network

    if isinstance(bundle.config, Needs):
        # Never by what the manifest says: that would run whatever code it names.
        if network is None and bundle.model_id in PEERS:
            source = load_peer(bundle.model_id, weights, bundle.config.input_size)
            return _same(bundle, source)
        if network is None:
            raise ConfigError(
                f"this pair is of {bundle.model_id[:80]}, code that is not mobileinst's",
                "Where you trust it, name it with --network",
            )
        source = load_network(network, weights, None)
        if source.config.input_size != bundle.config.input_size:
            source = load_network(network, weights, bundle.config.input_size)
        return _same(bundle, source)
    if weights is None and bundle.trained:
        if bundle.model_id in zoo_ids():
            source = load_model(bundle.model_id, size=bundle.config.input_size)
            if source.checkpoint_sha256 == bundle.checkpoint_sha256:
                return source
        raise ConfigError(
            "the weights that this pair was exported from are not at hand",
            "Give them with --weights",
        )
    return build_loaded(
        bundle.model_id, bundle.config, weights, seed=bundle.seed or 0, tolerance=bundle.tolerance
    )


def _same(bundle: ExportBundle, source: LoadedModel) -> LoadedModel:
    """The source, once it is what the pair was exported from."""
    if source.checkpoint_sha256 != bundle.checkpoint_sha256:
        raise ConfigError(
            "the weights that this pair was exported from are not at hand",
            "Give them with --weights",
        )
    if source.config != bundle.config:
        raise ConfigError(
            f"{source.id} needs something else than the network of this pair",
            "Name the network that it was exported from",
        )
    return source


def _locate(
    bundle: ExportBundle,
    golden: Golden,
    weights: Path | None,
    network: str | None,
    report: ParityReport,
) -> dict[str, Any] | None:
    """Find, print and return the first node that differs; None where there is none to find."""
    from dataclasses import asdict

    from mobileinst_deploy.pair.locate import first_divergence, suspects
    from mobileinst_deploy.pair.onnx_file import load_graph
    from mobileinst_deploy.pair.tracing import trace_pair

    if not any(check.rung == "outputs" for check in report.checks):
        people.print("There is no node to locate: nothing was run, as the graphs' borders differ.")
        return None
    source = _source_of(bundle, weights, network)
    specs = {role: graph.spec for role, graph in bundle.graphs.items()}
    opset = bundle.graphs["frame"].opset
    references = trace_pair(source.model, specs, golden.image(0), opset)
    for role, picture in suspects(report):
        feeds = golden.inputs(role, picture)
        graph = load_graph(bundle.graphs[role].path)
        found = first_divergence(graph, references[role], feeds, bundle.tolerance)
        if found is not None:
            where = f"{role}, picture {picture}"
            people.print(
                f"The first difference is in {where}: {found}", markup=False, soft_wrap=True
            )
            return {"graph": role, "picture": picture, **asdict(found)}
    people.print(
        "On this machine, node by node, both graphs agree with a fresh export: the difference "
        "arises in the runtime that ran them."
    )
    return None
