"""What is connected, and what goes to a phone: list it, assemble it, remove it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.phone.adb import choose_devices, list_devices
from mobileinst_deploy.phone.device_bundle import (
    DeviceBundle,
    Runtime,
    clean_cache as clean_device_cache,
    prepare_bundle,
)
from mobileinst_deploy.phone.overview import Overview, overview
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.storage import clean_phone
from mobileinst_deploy.runtimes import known_runtime


def devices() -> tuple[Overview, ...]:
    """Every device that adb sees, with what it tells of itself.

    Raises:
        DeviceError: adb is missing or does not answer.
    """
    return overview(list_devices())


def prepare(
    runtime: str = "onnxruntime", *, force: bool = False, progress: Progress = silent
) -> DeviceBundle:
    """Assemble what goes to a device; later runs need no network.

    Args:
        runtime: What shall run the graphs there.
        force: Fetch and build everything again.
        progress: Told of each step.

    Raises:
        ConfigError: There is no such runtime.
        DeviceError: Something to build or fetch it is missing.
        OutputError: The cache cannot be written.
    """
    known_runtime(runtime)
    return prepare_bundle(runtime=cast("Runtime", runtime), force=force, progress=progress)


def clean(serials: Sequence[str] = (), *, every: bool = False) -> Mapping[str, int]:
    """End every runner on phones and remove all that was pushed to them.

    Args:
        serials: Which phones; none means the only one.
        every: Every phone that adb sees.

    Returns:
        By serial, how many bytes that freed.

    Raises:
        ConfigError: Both were asked for.
        DeviceError: A phone is missing or cannot be used.
    """
    if serials and every:
        raise ConfigError("--serial names phones and --all means every one", "Give one of them")
    chosen = choose_devices(serials, every=every)
    return {device.serial: clean_phone(AdbDevice(device.serial)) for device in chosen}


def clean_cache() -> int:
    """Remove the assembled bundles from this machine; gives the bytes that freed.

    Raises:
        OutputError: Something cannot be removed.
    """
    return clean_device_cache()
