"""Whatever computes the graphs, behind one protocol: ONNX Runtime, ncnn, PyTorch, a phone, qemu.

:func:`open_runner` gives a :class:`~mobileinst_deploy.core.contract.GraphRunner` for an exported
pair; PyTorch's is :class:`mobileinst_deploy.runtimes.pytorch.TorchRunner`, for a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mobileinst_deploy.core.config import HALF_TOLERANCE
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.progress import Progress, silent

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.core.contract import GraphRunner
    from mobileinst_deploy.phone.device_bundle import DeviceBundle, Runtime
    from mobileinst_deploy.runtimes.host import HostRunner

DEVICES = ("cpu", "adb", "qemu")
RUNTIMES = ("onnxruntime", "ncnn", "ncnn-fp16")


@contextmanager
def open_runner(
    bundle: ExportBundle,
    device: str = "cpu",
    runtime: str = "onnxruntime",
    *,
    serial: str | None = None,
    progress: Progress = silent,
) -> Iterator[GraphRunner]:
    """Open what computes a pair's graphs, and leave nothing behind there after.

    Args:
        bundle: The pair.
        device: ``cpu`` (this machine), ``adb`` (a phone) or ``qemu``.
        runtime: ``onnxruntime``, ``ncnn``, for which the pair is converted when it is not yet, or
            ``ncnn-fp16``, the same in half precision, which no PC computes.
        serial: Which phone; None means the only one.
        progress: Told of what is built, converted and pushed.

    Yields:
        The runner. A phone's and qemu's is a
        :class:`~mobileinst_deploy.runtimes.device.DeviceRunner`, this machine's a
        :class:`~mobileinst_deploy.runtimes.host.HostRunner`.

    Raises:
        ConfigError: No such device or runtime, or a serial for what is no phone.
        DeviceError: It is not there, or not usable.
        BundleError: The pair cannot be converted for the runtime.
    """
    known_device(device)
    known_runtime(runtime)
    only_adb({"--serial": serial}, device)
    if device == "cpu":
        yield open_host(bundle, runtime, progress=progress)
        return
    taken, device_bundle = for_device(bundle, runtime, progress)
    if device == "qemu":
        from mobileinst_deploy.runtimes.qemu import QemuRunner

        yield QemuRunner(taken, device_bundle)
        return
    from mobileinst_deploy.runtimes.phone import AdbRunner

    with AdbRunner(taken, device_bundle, serial, progress=progress) as runner:
        yield runner


def open_host(
    bundle: ExportBundle, runtime: str = "onnxruntime", *, progress: Progress = silent
) -> HostRunner:
    """Open what computes a pair's graphs on this machine; there is nothing to close.

    Raises:
        ConfigError: No such runtime.
        DeviceError: pnnx or ncnn is missing.
        BundleError: The pair cannot be converted for the runtime.
    """
    known_runtime(runtime)
    if runtime == "ncnn-fp16":
        raise ConfigError(
            "ncnn-fp16 computes in half precision, which this machine's ncnn cannot",
            "Use --device adb with a phone of ARMv8.2, or --device qemu",
        )
    if runtime == "ncnn":
        from mobileinst_deploy.runtimes.graph_bounds import require_bounded
        from mobileinst_deploy.runtimes.ncnn.host import NcnnRunner
        from mobileinst_deploy.runtimes.ncnn.rehearsal import rehearse

        require_bounded(bundle)
        runner = NcnnRunner(_as_ncnn(bundle, progress))
        rehearse(runner.bundle)
        return runner
    from mobileinst_deploy.runtimes.onnxruntime import CpuRunner

    return CpuRunner(bundle)


def for_device(
    bundle: ExportBundle, runtime: str, progress: Progress = silent
) -> tuple[ExportBundle, DeviceBundle]:
    """The pair as a runtime takes it, and what runs it on a device.

    Raises:
        ConfigError: No such runtime.
        DeviceError: Something to build, fetch or convert it is missing.
        BundleError: It cannot be converted.
    """
    from mobileinst_deploy.phone.device_bundle import prepare_bundle
    from mobileinst_deploy.runtimes.graph_bounds import require_bounded

    known_runtime(runtime)
    require_bounded(bundle)
    device_bundle = prepare_bundle(runtime=cast("Runtime", runtime), progress=progress)
    taken = bundle if runtime == "onnxruntime" else _as_ncnn(bundle, progress)
    return as_computed(taken, runtime), device_bundle


def as_computed(bundle: ExportBundle, runtime: str) -> ExportBundle:
    """The pair with the arithmetic of a runtime, and what ``verify`` then allows.

    Half precision's rounding is far larger than what tells one float32 runtime from another, so it
    has a tolerance of its own: :data:`~mobileinst_deploy.core.config.HALF_TOLERANCE`.
    """
    if runtime != "ncnn-fp16":
        return bundle
    return replace(bundle, arithmetic="fp16", tolerance=HALF_TOLERANCE)


def known_device(device: str) -> None:
    """Refuse a device that does not exist.

    Raises:
        ConfigError: It is none of :data:`DEVICES`.
    """
    if device not in DEVICES:
        raise ConfigError(f"there is no device {device!r}", f"Use one of {', '.join(DEVICES)}")


def only_adb(options: Mapping[str, object], device: str) -> None:
    """Refuse options that would do nothing, as they speak of phones.

    Args:
        options: By name, what was given; None where nothing was.
        device: The device that was named.

    Raises:
        ConfigError: Some were given, and the device is not ``adb``.
    """
    given = [name for name, value in options.items() if value is not None]
    if given and device != "adb":
        raise ConfigError(
            f"{', '.join(given)} speaks of a phone and the device is {device}",
            "Add --device adb, or leave it away",
            given[0],
        )


def known_runtime(runtime: str) -> None:
    """Refuse a runtime that does not exist.

    Raises:
        ConfigError: It is none of :data:`RUNTIMES`.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"there is no runtime {runtime!r}", f"Use one of {', '.join(RUNTIMES)}")


def _as_ncnn(bundle: ExportBundle, progress: Progress) -> ExportBundle:
    from mobileinst_deploy.phone.ncnn_build import layers
    from mobileinst_deploy.runtimes.ncnn.convert import as_ncnn

    return as_ncnn(bundle, layers(), progress)
