"""A runner that misbehaves, in every way that was thought of, on a real phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import adb, left_running
from fake_runner import GOOD, PLAN, FakeRunner, broken, result, with_tensor

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.phone import session as sessions
from mobileinst_deploy.phone.result import BEGIN, RunnerResult

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]

Start = Callable[[str], RunnerResult]


@pytest.fixture(scope="module")
def start(shared_phone, pair, fake_bundle, tmp_path_factory) -> Iterator[Start]:
    """Run a script in the runner's place, in a session that many tests share."""
    serial = shared_phone.serial
    adb("connect", serial)
    runner = FakeRunner(pair, fake_bundle, tmp_path_factory.mktemp("behaviour"))
    with runner.session(serial) as session:

        def started(script: str) -> RunnerResult:
            runner.behave(serial, script)
            return session.start(PLAN)

        yield started
    assert left_running(serial) == ""
    adb("disconnect", serial)


@pytest.fixture
def alone(start: Start, shared_phone) -> Iterator[None]:
    """After the test no runner may be alive, though its session is still open."""
    yield
    assert left_running(shared_phone.serial, folders=False) == ""


DEATHS = {
    "killed (137)": ("kill -9 $$", ["no result", "137 (killed", "memory"]),
    "crashing (139)": ("kill -11 $$", ["no result", "139 (crashed"]),
    "aborting (134)": ("echo 'terminate called' >&2; kill -6 $$", ["134 (aborted"]),
    "silent": ("exit 0", ["no result", "exit code 0"]),
    "failing": ("echo 'cannot do it' >&2; exit 3", ["exit code 3", "cannot do it"]),
    "half a result": (
        f'echo {BEGIN}; printf \'{{"schema":1,"ok":tr\'; exit 0',
        ["only half a result"],
    ),
    "result of another length": (
        result(GOOD).replace("RESULT-END ", "RESULT-END 9"),
        ["cannot be read"],
    ),
    "binary garbage": ("head -c 3000 /dev/urandom; exit 0", ["no result"]),
    "no JSON": (result("{nonsense"), ["cannot be read"]),
    "JSON of another kind": (result("[1, 2, 3]"), ["cannot be read"]),
    "unknown schema": (result({**GOOD, "schema": 99}), ["cannot be read"]),
    "missing fields": (result({"schema": 1, "ok": True}), ["not understood"]),
    "wrong types": (result({**GOOD, "calls": "many"}), ["not understood"]),
    "deep JSON": (result("[" * 20000), ["cannot be read"]),
    "success and a bad exit": (result(GOOD) + "exit 16", ["reported success", "16"]),
    "out of memory": (
        result({**GOOD, "ok": False, "error": {"kind": "memory", "message": "no memory"}})
        + "exit 19",
        ["no memory", "smaller model"],
    ),
    "escape codes in its words": (
        "printf '\\033[2J\\033]0;title\\007gone wrong\\n' >&2; exit 4",
        ["gone wrong"],
    ),
    "a path as a file name": (
        result(with_tensor("../../../../tmp/pwned", b"1234")),
        ["not understood", ".file is "],
    ),
    "an absolute file name": (
        result(with_tensor("/etc/passwd", b"1234")),
        ["not understood", ".file is "],
    ),
    "an impossible shape": (
        result(with_tensor("0.0.bin", b"1234", shape=[1 << 27, 1 << 27])),
        ["not understood"],
    ),
}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("death", DEATHS)
def test_runner_misbehaves(start: Start, death: str, survived) -> None:
    """The runner misbehaves"""
    script, words = DEATHS[death]
    with pytest.raises(DeviceError) as caught:
        start(script)
    broken(caught, *words)
    assert "\033" not in str(caught.value)
    survived(caught.value)


@pytest.mark.usefixtures("alone")
def test_garbage_around_the_result(start: Start, survived) -> None:
    """The runner prints garbage before and after its result"""
    noise = "WARNING: linker: unused DT entry; printf 'half a line'\n"
    got = start(f"cat <<'XX'\n{noise}XX\n{result(GOOD)}echo bye; echo bye >&2")
    assert got.mode == "outputs"
    survived("the result is found and used")


@pytest.mark.usefixtures("alone")
def test_runner_hangs(start: Start, monkeypatch, survived) -> None:
    """The runner hangs past its limit"""
    monkeypatch.setattr(sessions, "_GRACE_S", -18.0)
    with pytest.raises(DeviceError, match="took longer than 2 s") as caught:
        start("sleep 600")
    broken(caught)
    survived(caught.value)
