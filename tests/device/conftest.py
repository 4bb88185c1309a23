"""Real adb, real adbd, one phone for most tests; what is missing skips and says what mends it.

``MOBILEINST_WRITE_FAULTS=1`` writes docs/faults.md from what the fault tests saw.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
sys.path.insert(0, str(HERE))

import faultlist  # noqa: E402
import tiny_export  # noqa: E402
import wire  # noqa: E402
from fake_runner import LOADER_SCRIPT  # noqa: E402
from track_checker import Checker  # noqa: E402

from mobileinst_deploy.core.bundle import ExportBundle  # noqa: E402
from mobileinst_deploy.core.errors import MobileInstError  # noqa: E402
from mobileinst_deploy.phone.adb import adb_program  # noqa: E402
from mobileinst_deploy.phone.device_bundle import (  # noqa: E402
    LIBRARY,
    LOADER,
    RUNNER,
    BundleFile,
    DeviceBundle,
    prepare_bundle,
)
from mobileinst_deploy.phone.shell import AdbDevice  # noqa: E402

PHONE = REPOSITORY / "scripts" / "phone"


@dataclass(frozen=True)
class EmulatedPhone:
    """A phone of ``scripts/phone``."""

    serial: str
    pid: int
    folder: Path

    @property
    def port(self) -> int:
        return int(self.serial.rpartition(":")[2])

    def set(self, path: str, value: str) -> None:
        """Change a file of the phone's /sys or /system/etc while it runs."""
        name = path.replace("/system/etc/", "etc/").lstrip("/")
        (self.folder / name).write_text(value + "\n")

    def read(self, path: str) -> str:
        return (self.folder / path.replace("/system/etc/", "etc/").lstrip("/")).read_text().strip()


def adb(*arguments: str) -> str:
    done = subprocess.run(
        [adb_program(), *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def adb_server() -> Iterator[int]:
    """An adb server of our own, that looks for nothing but what it is told to connect to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = {
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADB_USB": "0",
        "ADB_EMU": "0",
        "ADB_MDNS": "0",
    }
    before = {name: os.environ.get(name) for name in (*ours, "ANDROID_SERIAL")}
    os.environ.pop("ANDROID_SERIAL", None)
    os.environ.update(ours)
    adb("start-server")
    yield port
    adb("kill-server")
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def connect(adb_server: int) -> Iterator[Callable[[str], str]]:
    """Connect something to the adb server for one test."""
    serials = []

    def connected(serial: str) -> str:
        serials.append(serial)
        adb("disconnect", serial)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [adb_program(), "connect", serial], capture_output=True, timeout=3, check=False
            )
        return serial

    yield connected
    for serial in serials:
        adb("disconnect", serial)


def reach(serial: str, connect: Callable[[str], str]) -> AdbDevice:
    """Connect to a device that was away, as often as it takes.

    The adb server may still be at its own attempts to reach it; then it calls the device connected
    and offline at once, and a single ``adb connect`` proves nothing.
    """
    deadline = time.monotonic() + 30
    while True:
        connect(serial)
        if adb("-s", serial, "get-state").strip() == "device":
            return AdbDevice(serial)
        assert time.monotonic() < deadline, f"{serial} does not come back"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def start_phone(adb_server: int) -> Iterator[Callable[..., EmulatedPhone]]:
    """Start a phone by profile, at a port of its own or a given one; all end with the session."""
    check = subprocess.run([PHONE, "check"], capture_output=True, text=True, check=False)
    if check.returncode:
        pytest.skip(f"no emulated phone: {check.stdout.strip()}")
    prepared = subprocess.run([PHONE, "prepare"], capture_output=True, text=True, check=False)
    if prepared.returncode:
        pytest.skip(f"no emulated phone: {prepared.stderr.strip()}; run: scripts/phone prepare")
    running = []
    # Phones are found in the user's cache, and other tests may take another one until the end.
    environment = dict(os.environ)

    def started(profile: str, port: int | None = None) -> EmulatedPhone:
        where = [] if port is None else ["--port", str(port)]
        done = subprocess.run(
            [PHONE, "start", "--profile", profile, "--json", *where],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        told = json.loads(done.stdout)
        phone = EmulatedPhone(told["serial"], told["pid"], Path(told["folder"]))
        running.append(phone)
        return phone

    yield started
    for phone in running:
        subprocess.run(
            [PHONE, "stop", str(phone.pid)], capture_output=True, check=False, env=environment
        )


@pytest.fixture(scope="session")
def shared_phone(start_phone: Callable[[str], EmulatedPhone]) -> EmulatedPhone:
    """The cool 778G that most tests use."""
    return start_phone("778g")


@pytest.fixture
def phone(shared_phone: EmulatedPhone, connect: Callable[[str], str]) -> Iterator[EmulatedPhone]:
    """The cool 778G, connected; after the test nothing of ours may run on it."""
    connect(shared_phone.serial)
    yield shared_phone
    connect(shared_phone.serial)
    assert left_running(shared_phone.serial) == ""


@pytest.fixture
def other_phone(
    start_phone: Callable[[str], EmulatedPhone],
    connect: Callable[[str], str],
    _phones_by_profile: dict[str, EmulatedPhone],
) -> Callable[[str], EmulatedPhone]:
    """Another profile's phone, connected; tests share it."""

    def started(profile: str) -> EmulatedPhone:
        phone = _phones_by_profile.get(profile) or start_phone(profile)
        _phones_by_profile[profile] = phone
        connect(phone.serial)
        return phone

    return started


@pytest.fixture(scope="session")
def _phones_by_profile() -> dict[str, EmulatedPhone]:
    return {}


def left_running(serial: str, *, folders: bool = True) -> str:
    """Runners that are alive on a phone, and session folders; waits a moment for them to go."""
    look = "grep -l 'mobileinst_runne[r]' /proc/[0-9]*/cmdline 2>/dev/null"
    if folders:
        look += "; ls -d /data/local/tmp/mobileinst/run-* 2>/dev/null"
    for _ in range(10):
        found = AdbDevice(serial).shell(look).stdout.strip()
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.fixture
def odd_phone(connect: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """Something that shakes hands with the adb server in its own way, by kind."""
    phones = []

    def odd(kind: str) -> str:
        phones.append(wire.OddPhone(kind))
        return connect(phones[-1].serial)

    yield odd
    for phone in phones:
        phone.close()


@pytest.fixture
def bad_wire(phone: EmulatedPhone, connect: Callable[[str], str]) -> Iterator[wire.Wire]:
    """The shared phone behind a wire that can fail, the only device that is connected."""
    adb("disconnect", phone.serial)
    between = wire.Wire(phone.port)
    reach(between.serial, connect)
    yield between
    between.close()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> ExportBundle:
    """A tiny exported pair."""
    return tiny_export.export(tmp_path_factory.mktemp("pair") / "tiny")


@pytest.fixture(scope="session")
def real_bundle() -> DeviceBundle:
    """The bundle that goes to phones."""
    try:
        return prepare_bundle()
    except MobileInstError as error:
        pytest.skip(f"no device bundle: {error}")


@pytest.fixture(scope="session")
def fake_bundle(tmp_path_factory: pytest.TempPathFactory) -> DeviceBundle:
    """A bundle whose runner is a shell script; see ``fake_runner``."""
    folder = tmp_path_factory.mktemp("fake")
    return bundle_of(folder, {LOADER: LOADER_SCRIPT, RUNNER: "runner", LIBRARY: "library"})


def bundle_of(folder: Path, contents: dict[str, str | bytes]) -> DeviceBundle:
    """A device bundle with hand-made files."""
    files = []
    for name, content in sorted(contents.items()):
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o755)
        executable = name in (LOADER, RUNNER)
        files.append(BundleFile(name, hashlib.sha256(data).hexdigest(), len(data), executable))
    digest = hashlib.sha256("".join(f.sha256 for f in files).encode()).hexdigest()
    return DeviceBundle(folder, tuple(files), digest, "onnxruntime", "0", "none")


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Note what a fault led to, for docs/faults.md: an error, or a sentence and an exit code."""

    def note(outcome: MobileInstError | str, exit_code: int = 0) -> None:
        if isinstance(outcome, MobileInstError):
            faultlist.note(request.node, str(outcome), outcome.exit_code)
        else:
            faultlist.note(request.node, outcome, exit_code)

    return note


def pytest_sessionfinish() -> None:
    if os.environ.get("MOBILEINST_WRITE_FAULTS") == "1":
        faultlist.write()


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    """The tracker's library, as a process that answers."""
    process = Checker()
    yield process
    process.close()
