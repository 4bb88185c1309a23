"""Which device runs the graphs: the option that verify, bench and run share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mobileinst_deploy.cli.console import progress_bar
from mobileinst_deploy.errors import ConfigError

if TYPE_CHECKING:
    from mobileinst_deploy.bundle import ExportBundle
    from mobileinst_deploy.specs import GraphRunner

DEVICES = ("cpu", "adb", "qemu")


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


@contextmanager
def pair_runner(bundle: ExportBundle, device: str, serial: str | None) -> Iterator[GraphRunner]:
    """Open whatever runs the pair on ``device``, and leave nothing behind there after.

    Raises:
        ConfigError: No such device.
        DeviceError: It is not there, or not usable.
    """
    known_device(device)
    only_adb(["--serial"] if serial is not None else [], device)
    if device == "cpu":
        from mobileinst_deploy.ort import CpuRunner

        yield CpuRunner(bundle)
        return
    from mobileinst_deploy.device.prepare import prepare_bundle

    with progress_bar() as progress:
        device_bundle = prepare_bundle(progress=progress)
    if device == "qemu":
        from mobileinst_deploy.device.qemu import QemuRunner

        yield QemuRunner(bundle, device_bundle)
        return
    from mobileinst_deploy.device.adb_runner import AdbRunner

    with (
        progress_bar() as progress,
        AdbRunner(bundle, device_bundle, serial, progress=progress) as runner,
    ):
        yield runner
