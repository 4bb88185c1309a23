"""TNN's own test program, as the user gives it: a stranger's files, and a stranger's words."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_pair
from conftest import left_running
from fake_runner import BEHAVIOUR
from hypothesis import given, strategies as st
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.errors import DeviceError, InputError
from mobileinst_deploy.measure.protocol import PROTOCOLS
from mobileinst_deploy.phone.shell import AdbDevice, ShellResult
from mobileinst_deploy.phone.tnn import proto_inputs, read_times, read_tnn_folder
from mobileinst_deploy.workflows.bench_targets import BenchSettings
from mobileinst_deploy.workflows.tnn import bench_tnn

STAND_IN = Path(__file__).parent / "tnn_stand_in.c"
#: What TNN prints of a model that lasts 10, 11 and 13.25 ms.
LINE = (
    "I/tnn: Print [File test/timer.cc][Line 55] {:<45s} TNN Benchmark time cost: min = 10.000  "
    " ms  |  max = 13.250   ms  |  avg = 11.000   ms \n"
)
FRAME = LINE.format("frame.tnnproto - ARM")
#: Prints that for whatever model it is given; its words are in a file for the test to read.
GOOD = f"""\
echo "$@" >> /data/local/tmp/words
taskset -p $$ >> /data/local/tmp/words
for word in "$@"; do case $word in *.tnnproto) name="${{word##*/}} - ARM"; esac; done
printf '%s' "{FRAME.strip().replace("frame.tnnproto - ARM", "$name")}"
"""
HEAD = (
    f'"1 9 1 4206624772 ,"\n"image 4 1 3 64 64 0 : kernels 3 1 {tiny_pair.N} {tiny_pair.D} 0 ,"\n'
    '" a b c ,"\n" mask_logits ,"\n" 1 ,"\n'
)
PROTO = {
    "frame": HEAD.replace(f" : kernels 3 1 {tiny_pair.N} {tiny_pair.D} 0", ""),
    "mask_head": HEAD,
}


def said(stdout: str, code: int = 0, stderr: str = "") -> ShellResult:
    return ShellResult(stdout, stderr, code)


def test_the_times_that_tnn_prints_are_read():
    noise = "E/tnn: something else\nhalf a line"
    assert read_times(said(noise + FRAME + noise), "frame.tnnproto") == (10.0, 11.0, 13.25)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (said(""), "told no time of frame.tnnproto and ended with exit code 0"),
        # TNN's own errors are multiples of 256, of which an exit code shows nothing.
        (said("", 0, "E/tnn: init tnn failed: code: 0x1000 msg: bad"), "init tnn failed"),
        (said(FRAME, 3), "exit code 3"),
        (said("", 139), r"crashed, 11"),
        (said(LINE.format("other.tnnproto - ARM")), "told no time"),
        (said(LINE.format("frame.tnnproto - OPENCL")), "told no time"),
        (said(FRAME + FRAME), "that cannot be"),
        (said(FRAME.replace("10.000", "14.000")), "that cannot be"),
        (said(FRAME.replace("11.000", "99.000")), "that cannot be"),
        (said(FRAME.replace("10.000", " 0.000")), "that cannot be"),
        (said(FRAME.replace("11.000", "nan")), "told no time"),
        (said(FRAME.replace("13.250", "-3.250")), "told no time"),
        (said(FRAME.replace("13.250", "340282346638528")), "told no time"),
        (said("", 1, 'CANNOT LINK EXECUTABLE: library "libTNN.so" not found'), "every .so file"),
        (said("", 1, "taskset: 80: Invalid argument"), "--core"),
        (said("", 127, "sh: taskset: not found"), "--core"),
        (said("", 4, "\033[2Jgone"), "[?]|gone"),
    ],
)
def test_any_other_words_are_one_sentence(words: ShellResult, says: str):
    with pytest.raises(DeviceError, match=re.escape(says) if "|" not in says else says) as caught:
        read_times(words, "frame.tnnproto")
    assert "\033" not in str(caught.value)
    assert caught.value.next_step


@given(st.text() | st.text().map(lambda t: FRAME[:60] + t + FRAME[60:]))
def test_no_words_end_otherwise(text: str):
    try:
        low, mean, high = read_times(said(text), "frame.tnnproto")
    except DeviceError:
        return
    assert 0 < low <= high < 1e12
    assert mean > 0


def proto(text: str | bytes) -> Content:
    return Content(Path("x.tnnproto"), text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        (HEAD, {"image": (1, 3, 64, 64), "kernels": (1, tiny_pair.N, tiny_pair.D)}),
        (
            '"1 9 1 4206624770 ,"\n"image 1 3 64 64 : b 1 2 ,"\n"a ,"',
            {"image": (1, 3, 64, 64), "b": (1, 2)},
        ),
    ],
    ids=["rank told", "rank untold"],
)
def test_both_forms_of_a_proto_tell_their_inputs(text: str, inputs: dict):
    assert proto_inputs(proto(text)) == inputs


@pytest.mark.parametrize(
    "text",
    [
        "", "7767517\n1 2\n", HEAD.replace("4206624772", "7"), HEAD.replace("image 4", "image 5"),
        HEAD.replace("image 4", "image 99999999999999"), HEAD.replace(" 64 64", " 0 64"),
        HEAD.replace("kernels", "image"), HEAD.replace("image 4 1 3 64 64 0", ""), b"\x08\xff" * 99,
    ],
)  # fmt: skip
def test_what_is_no_proto_is_one_sentence(text: str | bytes):
    with pytest.raises(InputError, match=r"x\.tnnproto"):
        proto_inputs(proto(text))


@given(st.binary() | st.binary().map(lambda b: HEAD[:25].encode() + b))
def test_no_bytes_end_otherwise(data: bytes):
    with contextlib.suppress(InputError):
        assert all(shape for shape in proto_inputs(proto(data)).values())


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if compiler is None:
        pytest.skip("no stand-in for TNNTest; run: sudo apt-get install gcc-aarch64-linux-gnu")
    program = tmp_path_factory.mktemp("stand-in") / "TNNTest"
    subprocess.run([compiler, "-static", "-O1", "-s", STAND_IN, "-o", program], check=True)
    return program


@pytest.fixture
def folder(tmp_path: Path, stand_in: Path) -> Path:
    """What a user who has TNN gives."""
    made = tmp_path / "tnn"
    made.mkdir()
    shutil.copy(stand_in, made)
    shutil.copy(stand_in, made / "libTNN.so")
    for role, text in PROTO.items():
        (made / f"{role}.tnnproto").write_text(text)
        (made / f"{role}.tnnmodel").write_bytes(b"weights")
    return made


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no program": (lambda f: (f / "TNNTest").unlink(), "TNNTest does not exist"),
    "a program for PCs": (
        lambda f: shutil.copy("/bin/true", f / "TNNTest"), "no program or library for aarch64",
    ),
    "an empty program": (lambda f: (f / "TNNTest").write_bytes(b""), "for aarch64"),
    "a folder as the program": (
        lambda f: ((f / "TNNTest").unlink(), (f / "TNNTest").mkdir()),
        "TNNTest cannot be read: Is a directory",
    ),
    "a library for PCs": (lambda f: shutil.copy("/bin/true", f / "libTNN.so"), "libTNN.so"),
    "no weights": (lambda f: (f / "frame.tnnmodel").unlink(), "frame.tnnmodel does not exist"),
    "another size": (
        lambda f: (f / "frame.tnnproto").write_text(PROTO["frame"].replace("64 64", "64 128")),
        "takes image 1x3x64x128, and this pair's frame graph image 1x3x64x64",
    ),
    "the graphs swapped": (
        lambda f: (f / "frame.tnnproto").write_text(PROTO["mask_head"]), "kernels",
    ),
    "no folder": (shutil.rmtree, "is no folder"),
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILT)
def test_a_folder_that_cannot_be_used_says_why(folder: Path, how: str):
    spoil, says = SPOILT[how]
    spoil(folder)
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        read_tnn_folder(folder, tiny_pair.SPECS)
    assert caught.value.exit_code == 2


def test_tnn_may_add_axes_of_one_and_keyframes_need_no_mask_head(folder: Path):
    (folder / "mask_head.tnnproto").unlink()
    longer = PROTO["frame"].replace("4 1 3 64 64 0", "6 1 3 64 64 1 1 0")
    (folder / "frame.tnnproto").write_text(longer)
    read = read_tnn_folder(folder, {"frame": tiny_pair.SPECS["frame"]})
    assert read.live_kernels is None


# On a phone


@pytest.fixture
def behave(phone, tmp_path: Path) -> Callable[[str], None]:
    """Give TNN's stand-in on the phone a script."""

    def given(script: str) -> None:
        local = tmp_path / Path(BEHAVIOUR).name
        local.write_text(script)
        device = AdbDevice(phone.serial)
        device.push([local], str(Path(BEHAVIOUR).parent))
        device.shell("rm -f /data/local/tmp/words")

    return given


@pytest.fixture
def tnn(phone, pair: ExportBundle, folder: Path, behave):
    """Let a script in TNN's place run on the phone; gives the exit code and what is printed."""

    def ran(script: str, *words: object) -> tuple[int, dict]:
        behave(script)
        command = ["bench", pair.folder, "--device", "adb", "--tnn", folder, *words, "--json"]
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.stdout, done.stderr
        assert left_running(phone.serial) == ""
        return done.exit_code, json.loads(done.stdout)

    return ran


pytestmark = [pytest.mark.device, pytest.mark.xdist_group("phone")]


def test_a_phone_times_the_users_program_on_one_core(tnn, phone, pair: ExportBundle):
    code, document = tnn(GOOD, "-T", "1,3")
    assert code == 0, document
    assert document["valid"]
    assert document["emulated"]
    assert "clips" not in document, "an emulated phone has no latency"
    asked = [(t["role"], t["precision"], t["runs"]) for t in document["emulated_times"]]
    assert asked == [
        (role, precision, 16) for role in ("frame", "mask_head") for precision in ("HIGH", "AUTO")
    ]
    assert {t["mean_ms"] for t in document["emulated_times"]} == {11.0}
    assert document["conditions"] == {
        "clip_lengths": [1, 3], "live_kernels": tiny_pair.N, "threads": 1, "core": 7,
    }  # fmt: skip
    assert any("no output was compared" in note for note in document["notes"])
    words = AdbDevice(phone.serial).shell("cat /data/local/tmp/words").stdout.splitlines()
    first = words[0]
    assert "-dt ARM -pr HIGH -th 1 -it 0 -wc 5 -ic 16" in first
    assert words[1].endswith(": 80"), "core 7 and no other"
    kept = f"results/adb-{phone.serial.replace(':', '-')}-tnn-plain/tnn.json"
    assert json.loads((pair.folder / kept).read_text()) == document


def test_people_see_no_time_of_an_emulated_phone(tnn, phone, pair, folder):
    assert tnn(GOOD, "-T", "1")[0] == 0
    command = ["bench", pair.folder, "--device", "adb", "--tnn", folder, "-T", "1"]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0
    assert "nothing of time" in done.stdout
    assert "11.00" not in done.stdout + done.stderr


def test_too_few_runs_are_kept_and_not_believed(tnn):
    code, document = tnn(GOOD, "-T", "1", "--runs", "2")
    assert code == 4
    assert document["invalid"] == ["2 runs where tnn-script asks for 16"]
    assert document["emulated_times"]


BEHAVIOURS = {
    "prints nonsense": ("head -c 3000 /dev/urandom", "told no time"),
    "prints nothing": ("exit 0", "exit code 0"),
    "fails": ("echo 'E/tnn: create instance failed' >&2; exit 9", "create instance failed"),
    "crashes": ("kill -11 $$", "139 (crashed, 11)"),
    "lies": (GOOD.replace("10.000", "99.000"), "cannot be"),
}


@pytest.mark.parametrize("how", BEHAVIOURS)
def test_faults_tnns_program_misbehaves(tnn, how: str, survived):
    """TNN's own test program misbehaves"""
    script, says = BEHAVIOURS[how]
    code, document = tnn(script, "-T", "1")
    assert code == 3
    assert says in document["error"]["cause"]
    survived(DeviceError(document["error"]["cause"], document["error"]["next_step"]))


def test_faults_tnns_program_hangs(phone, pair, folder, behave, survived):
    """TNN's own test program hangs"""
    behave("sleep 600")
    settings = BenchSettings(PROTOCOLS["tnn-script"], clip_lengths=(1,), limit_s=3)
    with pytest.raises(DeviceError, match="took longer than 3 s") as caught:
        bench_tnn(pair, folder, settings)
    assert left_running(phone.serial) == ""
    survived(caught.value)


def test_faults_tnn_and_a_core_that_is_refused(
    other_phone, phone, pair, folder, tmp_path, survived
):
    """The kernel refuses to pin TNN's own test program"""
    serial = other_phone("refusing").serial
    command = ["bench", pair.folder, "--device", "adb", "--serial", serial, "--tnn", folder]
    done = CliRunner().invoke(app, list(map(str, [*command, "-T", "1", "--json"])))
    error = json.loads(done.stdout)["error"]
    assert done.exit_code == 3
    assert "--core" in error["next_step"]
    survived(DeviceError(error["cause"], error["next_step"]))


@pytest.mark.parametrize(
    "words",
    [
        ("--device", "cpu"),
        ("--runtime", "ncnn"),
        ("--protocol", "sd778g"),
        ("--seconds", "3"),
        ("--explain",),
        ("--sustained", "9"),
        ("--max-temp", "30"),
    ],
    ids=" ".join,
)
def test_options_that_mean_nothing_with_tnn_are_refused(pair, folder, words):
    command = ["bench", pair.folder, "--device", "adb", "--tnn", folder, *words, "--json"]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["next_step"]
