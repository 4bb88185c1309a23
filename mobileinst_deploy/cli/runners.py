"""Open what runs a pair's graphs, for the device and the runtime that were named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from mobileinst_deploy.cli.console import progress_bar
from mobileinst_deploy.core.errors import ConfigError

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.core.contract import GraphRunner
    from mobileinst_deploy.core.progress import Progress
    from mobileinst_deploy.phone.device_bundle import DeviceBundle
    from mobileinst_deploy.runtimes.ncnn.host import NcnnRunner

DEVICES = ("cpu", "adb", "qemu")
RUNTIMES = ("onnxruntime", "ncnn")


def known_device(device: str) -> None:
    """Refuse a device that does not exist.

    Raises:
        ConfigError: It is none of :data:`DEVICES`.
    """
    if device not in DEVICES:
        raise ConfigError(f"there is no device {device!r}", f"Use one of {', '.join(DEVICES)}")


def only_adb(given: Sequence[str], device: str) -> None:
    """Refuse options that would do nothing, as they speak of phones.

    Raises:
        ConfigError: There are some, and the device is not ``adb``.
    """
    if given and device != "adb":
        raise ConfigError(
            f"{', '.join(given)} speaks of a phone and the device is {device}",
            "Add --device adb, or leave it away",
        )


def known_runtime(runtime: str) -> None:
    """Refuse a runtime that does not exist.

    Raises:
        ConfigError: It is none of :data:`RUNTIMES`.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"there is no runtime {runtime!r}", f"Use {' or '.join(RUNTIMES)}")


def for_device(
    bundle: ExportBundle, runtime: str, progress: Progress
) -> tuple[ExportBundle, DeviceBundle]:
    """The pair as a runtime takes it, and what runs it on a device.

    Raises:
        ConfigError: No such runtime.
        DeviceError: Something to build, fetch or convert it is missing.
        BundleError: It cannot be converted.
    """
    from mobileinst_deploy.phone.device_bundle import Runtime, prepare_bundle

    known_runtime(runtime)
    device_bundle = prepare_bundle(runtime=cast("Runtime", runtime), progress=progress)
    return (_as_ncnn(bundle, progress) if runtime == "ncnn" else bundle), device_bundle


def ncnn_on_host(bundle: ExportBundle) -> NcnnRunner:
    """The pair converted, and run by ncnn on this machine.

    Raises:
        DeviceError: pnnx or ncnn is missing.
        BundleError: The pair cannot be converted.
    """
    from mobileinst_deploy.runtimes.ncnn.host import NcnnRunner

    with progress_bar() as progress:
        return NcnnRunner(_as_ncnn(bundle, progress))


def _as_ncnn(bundle: ExportBundle, progress: Progress) -> ExportBundle:
    from mobileinst_deploy.phone.ncnn_build import layers
    from mobileinst_deploy.runtimes.ncnn.convert import as_ncnn

    return as_ncnn(bundle, layers(), progress)


@contextmanager
def pair_runner(
    bundle: ExportBundle, device: str, serial: str | None, runtime: str = "onnxruntime"
) -> Iterator[GraphRunner]:
    """Open whatever runs the pair on ``device``, and leave nothing behind there after.

    Raises:
        ConfigError: No such device or runtime.
        DeviceError: It is not there, or not usable.
        BundleError: The pair cannot be converted for the runtime.
    """
    known_device(device)
    only_adb(["--serial"] if serial is not None else [], device)
    known_runtime(runtime)
    if device == "cpu":
        from mobileinst_deploy.runtimes.onnxruntime import CpuRunner

        yield ncnn_on_host(bundle) if runtime == "ncnn" else CpuRunner(bundle)
        return
    with progress_bar() as progress:
        bundle, device_bundle = for_device(bundle, runtime, progress)
    if device == "qemu":
        from mobileinst_deploy.runtimes.qemu import QemuRunner

        yield QemuRunner(bundle, device_bundle)
        return
    from mobileinst_deploy.runtimes.phone import AdbRunner

    with (
        progress_bar() as progress,
        AdbRunner(bundle, device_bundle, serial, progress=progress) as runner,
    ):
        yield runner
