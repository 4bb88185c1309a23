"""Faults while the runner runs on a phone, and while its outputs come back.

The runner is a shell script here that does what a test tells it, on the real phone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import adb, left_running, reach
from fake_runner import GOOD, PLAN, FakeRunner, broken, result, with_tensor

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.storage import REMOTE_ROOT

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]

#: A runner that says that it has begun, and then goes on for ever.
RUNNING = r"printf 'progress\trun\t1\t50\n' >&2; sleep 600"


@pytest.fixture
def fake(pair, fake_bundle, tmp_path) -> FakeRunner:
    return FakeRunner(pair, fake_bundle, tmp_path)


FETCHES = {
    "never written": ("", with_tensor("0.0.bin", b"1234"), "No such file"),
    "cut short": ("printf 12 > $out/0.0.bin; ", with_tensor("0.0.bin", b"1234"), "did not arrive"),
    "damaged": ("printf 1239 > $out/0.0.bin; ", with_tensor("0.0.bin", b"1234"), "did not arrive"),
}


@pytest.mark.parametrize("fault", FETCHES)
def test_outputs_are_not_what_the_runner_says(phone, fake, fault: str, survived) -> None:
    """A tensor is not as the runner says"""
    script, document, words = FETCHES[fault]
    fake.behave(phone.serial, script + result(document))
    with fake.session(phone.serial) as session, pytest.raises(DeviceError) as caught:
        session.tensors(PLAN)
    broken(caught, words)
    survived(caught.value)


def test_phone_vanishes_during_the_run(bad_wire, phone, fake, connect, survived) -> None:
    """The phone vanishes during the run, and comes back"""

    def vanish(label: str, done: float, total: float | None) -> None:
        if label == "run":
            bad_wire.cut()

    fake.behave(bad_wire.serial, RUNNING)
    with (
        pytest.raises(DeviceError) as caught,
        fake.session(bad_wire.serial, vanish) as session,
    ):
        session.start(PLAN)
    broken(caught, bad_wire.serial, "again")
    connect(phone.serial)  # another way to the same phone: nothing goes on running there
    assert left_running(phone.serial, folders=False) == ""
    bad_wire.mend()
    reach(bad_wire.serial, connect)
    fake.behave(bad_wire.serial, result(GOOD))
    with fake.session(bad_wire.serial) as session:
        assert session.start(PLAN).mode == "outputs"
    AdbDevice(phone.serial).shell(f"rm -rf {REMOTE_ROOT}/run-*")  # what the cut session left
    survived(caught.value)


def test_phone_vanishes_while_outputs_come_back(bad_wire, phone, fake, survived) -> None:
    """The phone vanishes while outputs are fetched"""
    size = 4 << 20
    document = with_tensor("0.0.bin", bytes(4), shape=[size // 4], bytes=size)
    fake.behave(bad_wire.serial, f"head -c {size} /dev/urandom > $out/0.0.bin\n" + result(document))
    with fake.session(bad_wire.serial) as session:
        got = session.start(PLAN)
        bad_wire.cut_after(down=1 << 20)
        with pytest.raises(DeviceError) as caught:
            session.fetch(got, fake.folder)
    broken(caught, bad_wire.serial)
    bad_wire.mend()
    adb("connect", phone.serial)
    AdbDevice(phone.serial).shell(f"rm -rf {REMOTE_ROOT}/run-*")
    survived(caught.value)


def test_adb_server_ends_during_the_run(phone, fake, connect, survived) -> None:
    """adb's server is ended during the run"""

    def end_it(label: str, done: float, total: float | None) -> None:
        if label == "run":
            adb("kill-server")

    fake.behave(phone.serial, RUNNING)
    with pytest.raises(DeviceError) as caught, fake.session(phone.serial, end_it) as session:
        session.start(PLAN)
    broken(caught, "adb's server was ended")
    connect(phone.serial)
    assert left_running(phone.serial, folders=False) == ""
    AdbDevice(phone.serial).shell(f"rm -rf {REMOTE_ROOT}/run-*")
    survived(caught.value)


def test_interrupted_run(phone, fake, survived) -> None:
    """Ctrl-C during the run"""

    def interrupt(label: str, done: float, total: float | None) -> None:
        if label == "run":
            raise KeyboardInterrupt

    fake.behave(phone.serial, RUNNING)
    with pytest.raises(KeyboardInterrupt), fake.session(phone.serial, interrupt) as session:
        session.start(PLAN)
    assert left_running(phone.serial) == ""
    survived("Interrupted; nothing half written was left behind.", 130)


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_this_program_is_ended_during_the_run(
    phone, fake, pair, signal_name: str, survived
) -> None:
    """This program is ended by a signal during the run"""
    fake.behave(phone.serial, RUNNING)
    graphs = {role: str(graph.path) for role, graph in pair.graphs.items()}
    program = f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        from pathlib import Path
        from conftest import bundle_of
        from mobileinst_deploy.phone.shell import AdbDevice
        from mobileinst_deploy.core.content import read_content
        from mobileinst_deploy.phone.plan import Plan
        from mobileinst_deploy.phone.session import Session
        import tempfile
        contents = {{p.name: p.read_bytes() for p in Path({str(fake.bundle.folder)!r}).iterdir()}}
        graphs = {{role: [read_content(Path(path))] for role, path in {graphs!r}.items()}}
        with tempfile.TemporaryDirectory() as folder:
            bundle = bundle_of(Path(folder), contents)
            tell = lambda *told: print(*told, flush=True)
            with Session(AdbDevice({phone.serial!r}), bundle, graphs, tell) as session:
                session.start(Plan("outputs", (), limit_seconds=60))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("run "):
                break
        process.send_signal(getattr(signal, signal_name))
        code = process.wait(20)
    assert code < 0
    assert left_running(phone.serial, folders=False) == ""
    AdbDevice(phone.serial).shell(f"rm -rf {REMOTE_ROOT}/run-*")
    survived("the runner on the phone is killed at once by its dead man's switch", 128 - code)


def test_two_sessions_on_one_phone(phone, fake, survived) -> None:
    """Two measurements on one phone"""
    with (
        fake.session(phone.serial),
        pytest.raises(DeviceError) as caught,
        fake.session(phone.serial),
    ):
        pass
    broken(caught, "another mobileinst is using the phone")
    survived(caught.value)


def test_folder_that_a_vanished_session_left(phone, fake, survived) -> None:
    """An earlier session left its folder on the phone"""
    device = AdbDevice(phone.serial)
    left = f"{REMOTE_ROOT}/run-left"
    device.shell(f"mkdir -p {left}; echo 99999 > {left}/pid; touch -d @1000000000 {left}")
    with fake.session(phone.serial):
        assert device.shell(f"ls {left}").exit_code != 0
    survived("it is removed, and the measurement goes on")


def test_32_bit_phone(other_phone, fake, survived) -> None:
    """The phone's system is 32-bit"""
    with pytest.raises(DeviceError) as caught, fake.session(other_phone("armv7").serial):
        pass
    broken(caught, "armeabi-v7a", "arm64-v8a")
    survived(caught.value)


def test_model_too_large_for_memory(other_phone, fake, survived) -> None:
    """The model is too large for the phone's free memory"""
    with pytest.raises(DeviceError) as caught, fake.session(other_phone("low-memory").serial):
        pass
    broken(caught, "40 MB of memory free")
    survived(caught.value)


def test_disk_here_is_full(phone, fake, tmp_path, survived) -> None:
    """The disk here is full when outputs come back"""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here, so no small disk can be made")
    device = AdbDevice(phone.serial)
    device.shell("head -c 3000000 /dev/zero > /data/local/tmp/large")
    (tmp_path / "disk").mkdir()
    program = f"""
        from pathlib import Path
        from mobileinst_deploy.phone.shell import AdbDevice
        from mobileinst_deploy.core.errors import MobileInstError
        try:
            AdbDevice({phone.serial!r}).pull(
                ["/data/local/tmp/large"], Path({str(tmp_path / "disk")!r}), 3000000)
        except MobileInstError as error:
            print(error.exit_code, error, sep="|")
    """
    told = subprocess.run(
        [
            *("unshare", "-Urm", "sh", "-c"),
            f'mount -t tmpfs -o size=1m none {tmp_path / "disk"} && exec "$@"',
            *("sh", sys.executable, "-c", textwrap.dedent(program)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    device.shell("rm /data/local/tmp/large")
    code, _, sentence = told.stdout.strip().partition("|")
    assert (code, "No space left on device" in sentence) == ("2", True), told.stdout + told.stderr
    survived(sentence, 2)
