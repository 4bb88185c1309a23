"""Whatever can be evaluated: an exported pair or a network, behind one and the same face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.contract import GraphRunner
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import canonical_sha256
from mobileinst_deploy.core.needs import Description
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.run_folder import is_run, upright_of
from mobileinst_deploy.core.zoo import MODEL_FILE, zoo_folder
from mobileinst_deploy.media.letterbox import is_upright
from mobileinst_deploy.runtimes import (
    as_computed,
    known_runtime,
    only_adb,
    open_host,
    open_runner,
)


@dataclass(frozen=True)
class Subject:
    """A model that can be evaluated.

    Attributes:
        id: Its name.
        config: What it is.
        sha256: Of the bundle's manifest, the checkpoint, or the recipe of random weights.
        trained: Whether its weights were trained.
        runtime: ``pytorch``, or what runs a pair's graphs.
        device: Where that is: ``cpu``, PyTorch's name of another, ``qemu`` or ``adb:SERIAL``.
        folder: Where its ``results`` belong: beside it, or here when it is the zoo's own.
        form: The pair's form, the checkpoint's name or the zoo id.
        runner: Computes its two graphs.
        upright: The same for upright pictures, its input size turned.
        caveat: Why this is not the paper's protocol, or None.
    """

    id: str
    config: Description
    sha256: str
    trained: bool
    runtime: str
    device: str
    folder: Path
    form: str
    runner: GraphRunner
    upright: Subject | None = None
    caveat: str | None = None

    def fitting(self, size: tuple[int, ...]) -> Subject:
        """Itself, or what upright pictures are given to where there is that."""
        return self.upright if self.upright and is_upright(size) else self


@contextmanager
def subject_on(
    name: str,
    device: str = "cpu",
    runtime: str = "onnxruntime",
    *,
    serial: str | None = None,
    upright: bool = False,
    progress: Progress = silent,
) -> Iterator[Subject]:
    """Open what the user named where the user wants it, and let go of that place after.

    Args:
        name: An exported folder, a checkpoint, a model.toml, or a zoo id.
        device: Of a pair: ``cpu``, ``adb`` or ``qemu``; of a network: PyTorch's name.
        runtime: What runs a pair's graphs.
        serial: Which phone.
        upright: As for :func:`open_subject`; not on a device, which has one pair at a time.
        progress: Told of what is built, converted and pushed.

    Raises:
        BundleError: It is a folder, but no whole exported pair, or not convertible.
        CheckpointError: The weights are unreadable or of another model.
        ConfigError: There is no such model, device or runtime.
        DeviceError: The device is missing or not usable.
    """
    known_runtime(runtime)
    only_adb({"--serial": serial}, device)
    folder = Path(name)
    if not _is_pair(folder):
        if runtime != "onnxruntime":
            raise ConfigError(
                f"{runtime} runs an exported pair, and {name} is none",
                "Export it first, or leave --runtime away",
            )
        yield open_subject(name, device, upright=upright)
        return
    if upright and device != "cpu":
        raise ConfigError(
            f"upright pictures are not evaluated on {device}, which has one pair at a time",
            "Evaluate both pairs one by one, or on --device cpu",
            "--upright",
        )
    with ExitStack() as opened:

        def of(folder: Path) -> Subject:
            bundle = as_computed(load_bundle(folder), runtime)
            runner = opened.enter_context(
                open_runner(bundle, device, runtime, serial=serial, progress=progress)
            )
            return _of_pair(bundle, folder, runner, runtime)

        subject = of(folder)
        yield replace(subject, upright=of(upright_of(folder))) if upright else subject


@places(0)
def open_subject(name: str, device: str = "cpu", *, upright: bool = False) -> Subject:
    """Load what the user named.

    Args:
        name: An exported folder, a run's folder, a checkpoint, a model.toml, or a zoo id.
        device: ``cpu``, or for PyTorch also torch's name of another device, such as ``cuda``.
        upright: Whether upright pictures are given to an input that is turned: of a network itself,
            of a pair the one beside it that ``export --upright`` wrote.

    Raises:
        BundleError: It is a folder, but no whole exported pair.
        CheckpointError: The weights are unreadable or of another model.
        ConfigError: There is no such model or device.
    """
    path = Path(name)
    if _is_pair(path):
        pair = _pair(path, device)
        return replace(pair, upright=_pair(upright_of(path), device)) if upright else pair
    network = _network(name, device)
    if not upright:
        return network
    height, width = network.config.input_size
    return replace(network, upright=_network(name, device, (width, height)))


def _is_pair(path: Path) -> bool:
    """Whether a path is meant as an exported pair: a folder that is no run and no model's."""
    return path.is_dir() and not is_run(path) and not (path / MODEL_FILE).is_file()


def _pair(folder: Path, device: str) -> Subject:
    if device != "cpu":
        raise ConfigError(
            f"an exported pair is evaluated on cpu, not on {device!r}",
            "Use subject_on for another device",
        )
    bundle = load_bundle(folder)
    return _of_pair(bundle, folder, open_host(bundle), "onnxruntime")


def _of_pair(bundle: ExportBundle, folder: Path, runner: GraphRunner, runtime: str) -> Subject:
    return Subject(
        id=bundle.model_id,
        config=bundle.config,
        sha256=bundle.sha256,
        trained=bundle.trained,
        runtime=runtime,
        device=runner.name,
        folder=_outside_the_zoo(folder),
        form=bundle.form,
        runner=runner,
        caveat=bundle.caveat,
    )


def _network(name: str, device: str, size: tuple[int, int] | None = None) -> Subject:
    from mobileinst_deploy.core.zoo import load_model_toml
    from mobileinst_deploy.network.loading import load_model
    from mobileinst_deploy.runtimes.pytorch import TorchRunner

    loaded = load_model(name, size=size)
    try:
        runner = TorchRunner(loaded.model, device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"PyTorch cannot use the device {device!r}: {reason}", "Use cpu, or cuda with a GPU"
        ) from error
    path = Path(name)
    if path.is_dir():
        folder = path
    else:
        folder = path.parent if path.is_file() else load_model_toml(name).folder
    # A model.toml is the model itself; of checkpoints there may be many in a folder.
    form = path.stem if path.is_file() and path.name != MODEL_FILE else loaded.model_id
    recipe = {"config": loaded.config.to_dict(), "seed": loaded.seed}
    return Subject(
        id=loaded.model_id,
        config=loaded.config,
        sha256=loaded.checkpoint_sha256 or canonical_sha256(recipe),
        trained=loaded.trained,
        runtime="pytorch",
        device=device,
        folder=_outside_the_zoo(folder),
        form=form,
        runner=runner,
    )


def _outside_the_zoo(folder: Path) -> Path:
    """The folder, or this one when the zoo would be written: the zoo is everybody's."""
    zoo = zoo_folder().resolve()
    return Path() if folder.resolve().is_relative_to(zoo) else folder
