"""The runner that options name, its preparation shown as progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mobileinst_deploy.cli.console import progress_bar
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.runtimes import open_runner

if TYPE_CHECKING:
    from mobileinst_deploy.core.bundle import ExportBundle
    from mobileinst_deploy.core.contract import GraphRunner


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
def pair_runner(
    bundle: ExportBundle, device: str, serial: str | None, runtime: str = "onnxruntime"
) -> Iterator[GraphRunner]:
    """Open whatever computes the pair on ``device``; it is closed with the block."""
    only_adb(["--serial"] if serial is not None else [], device)
    with (
        progress_bar() as progress,
        open_runner(bundle, device, runtime, serial=serial, progress=progress) as runner,
    ):
        yield runner
