"""Starting and stopping emulated phones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from emulated_phone.image import HERE, PhoneError, cache_folder, image
from emulated_phone.profile import Profile

START_LIMIT_S = 20.0


@dataclass(frozen=True)
class Phone:
    """A phone that runs.

    Attributes:
        serial: What ``adb connect`` takes, and then the serial: ``127.0.0.1:PORT``.
        pid: SIGKILL to this process ends everything that belongs to the phone.
        folder: Its ``sys`` and ``etc`` are the phone's ``/sys`` and ``/system/etc``: writing there
            changes the phone while it runs.
        start_s: Seconds from the call until adbd accepted a connection.
    """

    serial: str
    pid: int
    folder: str
    start_s: float


def start(profile: Profile, port: int | None = None) -> Phone:
    """Start a phone and wait until its adbd listens.

    Raises:
        PhoneError: The machine lacks something, or adbd did not come up; with its last words.
    """
    built = image()
    sweep()
    began = time.monotonic()
    port = port or _free_port()
    instances = cache_folder() / "instances"
    instances.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=instances, prefix=f"{port}-"))
    (folder / "root").mkdir()
    profile.write(folder)
    data, affinity = profile.data["data"], profile.data["affinity"]
    command = ["unshare", "-Urmpf", "--mount-proc", "--propagation", "private", "--kill-child"]
    command += ["bash", str(HERE / "boot.sh"), str(folder / "root"), str(built), str(folder)]
    command += [f"{data['megabytes']}m", "ro" if data["read_only"] else "rw"]
    command += [
        f"{sum(1 << i for i in profile.online):x}",
        "refuse" if affinity["refuse"] else "allow",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "ADBD_PORT": str(port),
                "CPU": profile.cpu,
            },
        )
    while not _listens(port):
        if process.poll() is not None or time.monotonic() - began > START_LIMIT_S:
            process.kill()
            process.wait()
            words = (folder / "log").read_text(errors="replace").strip()[-600:]
            shutil.rmtree(folder, ignore_errors=True)
            raise PhoneError(f"adbd did not come up: {words or 'no message'}")
        time.sleep(0.02)
    took = round(time.monotonic() - began, 2)
    phone = Phone(f"127.0.0.1:{port}", process.pid, str(folder), took)
    (folder / "phone.json").write_text(json.dumps(asdict(phone)))
    return phone


def stop(pid: int) -> None:
    """End the phone with this pid and remove its folder.

    Raises:
        PhoneError: No running phone has this pid.
    """
    folder = next((f for f, p in _known() if p == pid), None)
    if folder is None:
        raise PhoneError(f"no emulated phone has the pid {pid}")
    if _alive(pid):
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove what phones that were killed left behind."""
    for folder, pid in _known():
        if not _alive(pid):
            shutil.rmtree(folder, ignore_errors=True)


def _known() -> list[tuple[Path, int]]:
    found = []
    for record in (cache_folder() / "instances").glob("*/phone.json"):
        try:
            found.append((record.parent, int(json.loads(record.read_text())["pid"])))
        except (OSError, ValueError):
            # Another process is just writing or removing it. Were that an error, the phone that is
            # to be stopped here would run for ever.
            continue
    return found


def _alive(pid: int) -> bool:
    """Whether this pid still is the unshare that a phone began as, and no zombie."""
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != "unshare":
            return False
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
