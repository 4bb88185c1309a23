"""From a checkpoint to a pair of graphs on disk, proven equal to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.config import SIZE_MULTIPLE, ContextReuse, check_size
from mobileinst_deploy.core.contract import DEFAULT_OPSET
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import require_replaceable, require_writable
from mobileinst_deploy.core.needs import CELL
from mobileinst_deploy.core.pair_files import BUNDLE_FILES, MANIFEST
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.run_folder import is_run, pair_of, upright_of
from mobileinst_deploy.core.user_code import printing_aside
from mobileinst_deploy.core.zoo import MODEL_FILE, load_model_toml
from mobileinst_deploy.optimize.pair import GraphReport, optimize_pair
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.workflows.results import pair_place
from mobileinst_deploy.workflows.verify import Verified, climb

if TYPE_CHECKING:
    from mobileinst_deploy.network.loading import LoadedModel


@dataclass(frozen=True)
class Exported:
    """A pair that was written.

    Attributes:
        pair: It, checked.
        rewritten: What optimising did to its graphs; empty when it was not asked for.
        verified: The verdict on it; None when it was not asked for.
        note: Which weights of several in a file were taken; None where there was no choice.
        upright: The pair for upright pictures, where one was asked for.
    """

    pair: ExportBundle
    rewritten: tuple[GraphReport, ...]
    verified: Verified | None
    note: str | None = None
    upright: Exported | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        document: dict[str, Any] = {
            "folder": str(self.pair.folder),
            "pair_id": self.pair.pair_id,
        }
        if self.verified is not None:
            document["parity"] = self.verified.report.to_dict()
        if self.upright is not None:
            document["upright"] = self.upright.to_dict()
        return document


@printing_aside()
def export(
    model: str | None,
    output: str | Path | None = None,
    *,
    network: str | None = None,
    weights: str | Path | None = None,
    size: tuple[int, int] | None = None,
    reuse_context: ContextReuse | None = None,
    opset: int = DEFAULT_OPSET,
    dynamic_kernels: bool = True,
    simplify: bool = True,
    optimize: bool = False,
    verify: bool = True,
    upright: bool = False,
    progress: Progress = silent,
) -> Exported:
    """Export a model as a frame graph and a mask-head graph, and climb the parity ladder with them.

    Args:
        model: Id of the zoo or of a peer, the path of a model.toml, a run's folder, or a checkpoint
            that holds its configuration; None with ``network``.
        network: ``package.module:factory`` of a kernel network of the caller's own code, which is
            imported and run.
        output: Folder to write, all or nothing; it may hold an older pair and nothing else. None
            with a run's folder: its ``pair``.
        weights: Checkpoint to use instead of the model's own weights.
        size: (height, width) of the graphs' input in pixels, multiples of 64, of other networks
            than MobileInst of 32; None: the model's.
        reuse_context: From which map on reuse frames take over what their keyframe computed, see
            :class:`~mobileinst_deploy.core.config.ModelConfig`; None: the model's.
        opset: ONNX operator set.
        dynamic_kernels: Whether the mask-head graph takes any number of kernels.
        simplify: Whether constants and shapes are folded.
        optimize: Whether both graphs are rewritten, as ``mobileinst optimize`` does.
        verify: Whether the ladder is climbed; its ``parity.json`` lies under the pair.
        upright: Whether to export a second pair from the same weights, its input turned, into
            ``OUTPUT-upright``. ``run``, ``segment`` and ``track`` choose between the two by the
            picture.
        progress: Told of each step.

    Raises:
        ConfigError: There is no such model, or an option cannot be met.
        CheckpointError: The weights are unreadable or of another model.
        OutputError: The folder cannot be written or holds something else.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> exported = mobileinst.export("mobileinst-demo", "new-pair", verify=False)
        >>> exported.pair.form
        'plain'
        >>> mobileinst.verify("new-pair").report.passed
        True
    """
    weights = None if weights is None else Path(weights)
    if (model is None) == (network is None):
        raise ConfigError(
            "give either a model or --network" + ("" if model is None else ", not both"),
            "`mobileinst models` lists the zoo",
        )
    output = _output(model) if output is None else Path(output)
    # Before the work, which takes a while.
    require_replaceable(output, MANIFEST, BUNDLE_FILES)
    require_writable(output)
    source = _source(model, network, weights, size, reuse_context)
    from mobileinst_deploy.pair.export import export_model

    height, width = source.config.input_size
    if upright and height == width:
        raise ConfigError("a square input has no orientation", "Leave --upright out")
    pair = export_model(
        source,
        output,
        opset=opset,
        dynamic_kernels=dynamic_kernels,
        simplify=simplify,
        progress=progress,
    )
    rewritten: tuple[GraphReport, ...] = ()
    if optimize:
        pair, rewritten = optimize_pair(pair, output, progress=progress)
    verified = None
    if verify:
        runner = CpuRunner(pair)
        place = pair_place("parity", pair, runner.name, runner.runtime)
        verified = climb(pair, runner, "PyTorch, at this export", place, progress)
    turned = None
    if upright:
        turned = export(
            model,
            upright_of(output),
            network=network,
            weights=weights,
            size=(width, height),
            reuse_context=reuse_context,
            opset=opset,
            dynamic_kernels=dynamic_kernels,
            simplify=simplify,
            optimize=optimize,
            verify=verify,
            progress=progress,
        )
    return Exported(pair, rewritten, verified, source.note, turned)


def _output(model: str | None) -> Path:
    if model is None or not is_run(Path(model)):
        raise ConfigError(
            "it is not said where the pair goes", "Give a folder, such as -o pair", where="-o"
        )
    return pair_of(Path(model))


def _source(
    model: str | None,
    network: str | None,
    weights: Path | None,
    size: tuple[int, int] | None,
    reuse_context: ContextReuse | None,
) -> LoadedModel:
    """What the user named, with its weights."""
    if model is not None and (model.endswith(".toml") or (Path(model) / MODEL_FILE).is_file()):
        load_model_toml(model)
    # PyTorch takes seconds to load: what is wrong with a file of the user's is said before.
    from mobileinst_deploy.network.loading import load_model
    from mobileinst_deploy.network.peers.catalogue import NOT_BUILT, PEERS, load_peer
    from mobileinst_deploy.network.user_network import load_network

    foreign = network is not None or model in PEERS or model in NOT_BUILT
    if foreign and reuse_context is not None:
        raise ConfigError("only MobileInst reuses context", "Leave --reuse-context out")
    if size is not None:
        check_size(size, CELL if foreign else SIZE_MULTIPLE)
    if network is not None:
        return load_network(network, weights, size)
    if foreign:
        return load_peer(str(model), weights, size)
    return load_model(str(model), weights=weights, size=size, reuse_context=reuse_context)
