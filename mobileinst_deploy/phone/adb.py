"""adb's server: started quietly, and asked which phones are there and in which state."""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.programs import run_program
from mobileinst_deploy.core.text import shown, whole

if TYPE_CHECKING:
    import adbutils

CONNECT_LIMIT_S = 20.0
_HERE = "127.0.0.1"
_STATES = {
    "unauthorized": (
        "has not authorised this computer",
        "Unlock the phone and allow USB debugging in the dialogue that it shows",
    ),
    "offline": (
        "is offline",
        "Unplug it and plug it in again, or run `adb disconnect` and `adb connect` for one on TCP",
    ),
    "no": (  # "no permissions (...)"
        "may not be opened by this user",
        "Add Android's udev rules (Debian: apt-get install android-sdk-platform-tools-common)",
    ),
    "recovery": ("is in recovery mode", "Restart it into Android"),
    "sideload": ("is in sideload mode", "Restart it into Android"),
    "bootloader": ("is in its bootloader", "Restart it into Android"),
    "connecting": ("is still connecting", "Wait a moment and try again"),
    "authorizing": ("is still authorising this computer", "Look at its screen and try again"),
}


@dataclass(frozen=True)
class ListedDevice:
    """One line of ``adb devices``.

    Attributes:
        serial: As adb writes it.
        state: ``device`` when it can be used, else ``offline``, ``unauthorized``, ...
    """

    serial: str
    state: str

    @property
    def usable(self) -> bool:
        """Whether commands can be sent to it."""
        return self.state == "device"

    def problem(self) -> tuple[str, str]:
        """What is wrong with it and what to do, as two clauses."""
        return _STATES.get(
            self.state, (f"is in the state {self.state!r}", "Restart it into Android")
        )


def adb_program() -> Path:
    """The adb program: the one on PATH, else the one that adbutils carries.

    Raises:
        DeviceError: There is none.
    """
    import adbutils

    try:
        program = Path(adbutils.adb_path())
    except (adbutils.AdbError, OSError):
        program = Path()
    if not program.is_file():
        raise DeviceError(
            "there is no adb program on this machine",
            "Run `pip install --force-reinstall adbutils`, which carries one, or install"
            " Android's platform-tools",
        )
    return program


def list_devices() -> tuple[ListedDevice, ...]:
    """Every device that adb knows, in its order, usable or not.

    Raises:
        DeviceError: There is no adb, or its server cannot be started.
    """
    ensure_server()
    listed = []
    with (
        talking("the adb server"),
        client().make_connection(timeout=CONNECT_LIMIT_S) as connection,
    ):
        connection.send_command("host:devices")
        connection.check_okay()
        text = connection.read_string_block()
    for line in text.splitlines():
        serial, _, state = line.partition("\t")
        if serial and state:
            listed.append(ListedDevice(serial, state.split()[0]))
    return tuple(listed)


def choose_devices(serials: Sequence[str] = (), *, every: bool = False) -> tuple[ListedDevice, ...]:
    """The devices that a command is meant for, all of them usable.

    Args:
        serials: The serials asked for; empty means what ANDROID_SERIAL names, or the only one.
        every: Every usable device instead.

    Raises:
        DeviceError: None is there, several are and none was named, or one cannot be used.
    """
    named = os.environ.get("ANDROID_SERIAL", "")  # adb's own convention
    if not serials and not every and named:
        serials = [named]
    listed = list_devices()
    by_serial = {d.serial: d for d in listed}
    usable = [d for d in listed if d.usable]
    if every and not serials and usable:
        return tuple(usable)
    if not serials:
        if len(usable) > 1:
            raise DeviceError(
                f"{len(usable)} devices are connected: {', '.join(d.serial for d in usable)}",
                "Name one with --serial, or measure all of them with `bench --all`",
            )
        if usable:
            return tuple(usable)
        if listed:
            raise unusable(listed[0])
        raise DeviceError(
            "adb sees no device",
            "Connect a phone with USB debugging on, or `adb connect HOST:PORT`; `mobileinst doctor"
            " --device adb` explains",
        )
    for serial in serials:
        if serial not in by_serial:
            seen = ", ".join(by_serial) or "none"
            raise DeviceError(
                f"adb sees no device {_short(serial)}; it sees {seen}",
                "Check it with `mobileinst devices`",
            )
        if not by_serial[serial].usable:
            raise unusable(by_serial[serial])
    return tuple(by_serial[s] for s in dict.fromkeys(serials))


def unusable(device: ListedDevice) -> DeviceError:
    """The error for a device in a state that takes no commands."""
    problem, next_step = device.problem()
    return DeviceError(f"the phone {device.serial} {problem}", next_step, f"adb:{device.serial}")


def _short(serial: str) -> str:
    """A serial that a user typed, in quotes and of a bearable length."""
    return repr(serial if len(serial) <= 80 else f"{serial[:80]}...")


def _host() -> str:
    return os.environ.get("ANDROID_ADB_SERVER_HOST") or _HERE


def _port() -> int:
    text = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    port = whole(text, 1, 65535)
    if port is None:
        raise DeviceError(
            f"ANDROID_ADB_SERVER_PORT is {shown(text, 60)!r}, not a TCP port",
            "Unset it, or set it to 5037",
        )
    return port


def client() -> adbutils.AdbClient:
    """A client of the server that the environment names, with time limits.

    Raises:
        DeviceError: The environment names no port.
    """
    import adbutils

    return adbutils.AdbClient(host=_host(), port=_port(), socket_timeout=CONNECT_LIMIT_S)


def adb_command() -> list[str]:
    """The adb program, told of the server that :func:`client` talks to.

    The program itself heeds ANDROID_ADB_SERVER_PORT and not ANDROID_ADB_SERVER_HOST: without this,
    files would go to the phones of another machine than commands.

    Raises:
        DeviceError: There is none.
    """
    program = str(adb_program())
    return [program] if _host() == _HERE else [program, "-H", _host(), "-P", str(_port())]


def ensure_server() -> bool:
    """Start adb's server if it does not listen, without a word on our own streams.

    Returns:
        Whether it had to be started.
    """
    try:
        with socket.create_connection((_host(), _port()), timeout=3):
            return False
    except OSError as error:
        if _host() not in (_HERE, "localhost"):
            raise DeviceError(
                f"adb's server on {_host()}, port {_port()}, does not answer: {error}",
                "Start it there with `adb -a start-server`, or unset ANDROID_ADB_SERVER_HOST",
            ) from None
    done = run_program([str(adb_program()), "start-server"], limit_s=CONNECT_LIMIT_S)
    if done.code != 0:
        said = [done.fault] if done.fault else done.stderr.strip().splitlines()
        raise DeviceError(
            f"adb's server does not start: {said[-1] if said else 'it does not say why'}",
            "Run `adb start-server` by hand and see what it says",
        )
    return True


def require_one_version() -> None:
    """Refuse a server of another version than the adb program, which would end it unasked.

    With the server every phone's connection goes, this program's and Android Studio's.

    Raises:
        DeviceError: They differ, or the server does not answer.
    """
    own = _version_of(str(adb_program()))
    with talking("the adb server"):
        its = client().server_version()
    if own is not None and own != its:
        raise DeviceError(
            f"adb's server is of version {its} and the adb program of version {own}, which would"
            " end it and cut off every phone",
            "Use one adb: end the server with `adb kill-server`, or set ADBUTILS_ADB_PATH to the"
            " adb that started it",
        )


@functools.cache
def _version_of(program: str) -> int | None:
    """The adb program's version of what it speaks to its server; None where it does not say."""
    said = run_program([program, "version"], limit_s=CONNECT_LIMIT_S).stdout
    found = re.search(r"version 1\.0\.(\d{1,6})\b", said)
    return int(found[1]) if found else None


@contextmanager
def talking(whom: str) -> Iterator[None]:
    """Turn adbutils' and the operating system's errors into a DeviceError with a cause."""
    import adbutils

    try:
        yield
    except (adbutils.AdbError, OSError, EOFError, ValueError) as error:
        said = str(error) or "the connection was cut"
        raise DeviceError(
            f"{whom} stopped answering: {said}",
            "Check the cable, or restart adb with `adb kill-server`, then run this again",
        ) from error
