"""The command line's manners: streams, exit codes, tracebacks, colour, speed, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from commands import mobileinst
from forgery import edit_graph, rename

from mobileinst_deploy.cli import console, export
from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.errors import DeviceError, MeasurementInvalid, VerificationFailed

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
MAIN = [sys.executable, "-c", "from mobileinst_deploy.cli import main; main()"]
ESCAPE = "\x1b["


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``mobileinst`` as a process of its own, away from any terminal."""
    return subprocess.run(
        [*MAIN, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_help_says_what_there_is_and_what_exit_codes_mean():
    result = mobileinst("--help")
    assert result.exit_code == 0
    for word in ("models", "export", "verify", "bench", "inspect"):
        assert word in result.stdout
    for code in ("0 good", "1 verification failed", "2 bad input", "3 device", "4 meas", "130 int"):
        assert code in re.sub(r"\s+", " ", result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = mobileinst(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_help_speaks_no_python_and_shows_no_value_where_none_is_given(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in [*([command] for command in COMMANDS), ["device", "prepare"], ["device", "clean"]]:
        shown = mobileinst(*words, "--help").stdout
        assert not re.search(r"bool|list\[| range|Path", shown), words
        lines = [line.strip() for line in shown.split("\u256d")[0].split("\n")]
        for line, following in pairwise(lines):
            word = following.split(" ")[0]
            assert not word or not line or len(f"{line} {word}") > 78, (words, line)


@pytest.mark.parametrize("words", [[], ["device"]])
def test_no_command_shows_the_help_and_says_so(words):
    result = mobileinst(*words)
    assert result.exit_code == 2
    assert "Commands" in result.stdout
    assert result.stderr.startswith("error: no command was given.\n")
    assert "Usage" not in result.stderr


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), ["device", "prepare"], ["device", "clean"]]
)
def test_every_command_has_an_answer_for_machines(command):
    assert "--json" in mobileinst(*command, "--help").stdout


def test_a_mistyped_command_is_a_question():
    assert mobileinst("modles").stderr.splitlines()[1].endswith("Did you mean 'models'?")


def test_machines_are_told_which_argument_is_missing():
    assert json.loads(mobileinst("run", "--json").stdout)["error"]["where"] == "DIR"


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, resource\n"
        "sys.argv = ['mobileinst', '--help']\n"
        "from mobileinst_deploy.cli.app import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'onnxsim', 'cv2', 'numpy', 'scipy', 'av',"
        " 'safetensors', 'adbutils', 'skimage', 'accelerate', 'google'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == "[]\n"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_version_is_the_packages():
    from mobileinst_deploy import __version__

    assert mobileinst("--version").stdout == f"mobileinst {__version__}\n"


def test_completion_is_there_for_the_asking():
    done = run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "complete" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["frob"], ["verify"], ["verify", "--frob"], ["bench", "x", "--runs", "0"]]
)
def test_a_command_line_that_cannot_be_parsed_exits_2(arguments):
    result = mobileinst(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
    machines = mobileinst(*arguments, "--json")
    assert machines.exit_code == 2
    assert json.loads(machines.stdout)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (VerificationFailed("it differs", "Look"), 1, "error: it differs.\nLook.\n"),
        (DeviceError("no phone", "Plug it in"), 3, "error: no phone.\nPlug it in.\n"),
        (MeasurementInvalid("too warm", "Wait"), 4, "error: too warm.\nWait.\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x cannot be used: Permission denied"),
        (KeyboardInterrupt(), 130, "Interrupted; nothing half written was left behind."),
        (ZeroDivisionError("ouch"), 70, "error: mobileinst has a bug: ZeroDivisionError: ouch."),
        (MemoryError(), 70, "error: mobileinst has a bug: MemoryError"),
        (AttributeError("x [/]"), 70, "error: mobileinst has a bug: AttributeError: x [/]."),
    ],
)
def test_every_failure_has_its_sentence_and_its_exit_code(monkeypatch, raised, code, said):
    def fail(folder):
        raise raised

    monkeypatch.setattr("mobileinst_deploy.workflows.inspect.load_bundle", fail)
    result = mobileinst("inspect", ".")
    assert result.exit_code == code
    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    machines = mobileinst("inspect", ".", "--json")
    assert machines.exit_code == code
    error = json.loads(machines.stdout)["error"]
    assert error["exit_code"] == code
    assert set(error) == {"cause", "next_step", "exit_code", "where"}
    assert error["cause"].rstrip(": ") in result.stderr or code == 130


def test_debug_shows_the_traceback_of_the_same_failure(tmp_path):
    plain, debug = mobileinst("verify", tmp_path), mobileinst("--debug", "verify", tmp_path)
    assert plain.exit_code == debug.exit_code == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "load_bundle" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


def test_a_script_gets_json_on_stdout_and_people_read_stderr(pair: Path):
    done = run("verify", pair, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["passed"] is True
    assert "Parity of tiny on cpu" in done.stderr
    plain = run("verify", pair)
    assert "Parity of tiny on cpu" in plain.stdout, "without --json the table is the result"
    assert ESCAPE not in done.stdout + done.stderr, "no colour, no motion away from a terminal"


def test_a_failed_verification_still_gives_its_json(pair: Path):
    edit_graph(pair, "frame", lambda g: rename(g, "kernels", "kernel"))
    result = mobileinst("verify", pair, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["passed"] is False
    assert document["error"]["exit_code"] == 1


def test_a_pipe_that_is_closed_early_is_no_drama(pair: Path):
    shell = f"{sys.executable} -c '{MAIN[2]}' inspect {pair} --json | head -c 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("lines", [1, 3, 30])
@pytest.mark.parametrize("words", ["--help", "bench --help"])
def test_help_that_is_read_in_part_is_no_drama(words, lines):
    shell = f"{sys.executable} -c '{MAIN[2]}' {words} | head -{lines}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Broken pipe" not in done.stderr


def on_a_terminal(command: list[str], **environment: str) -> str:
    """What a command shows on a terminal of its own."""
    import pty

    main, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, **environment}
    )
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(main, 4096):
            shown += block
    except OSError:
        pass  # how a terminal says that its last user is gone
    process.wait(timeout=60)
    os.close(main)
    return shown.decode()


def test_colour_is_for_terminals_and_no_color_takes_it_away(tmp_path):
    command = [*MAIN, "verify", str(tmp_path / "none")]
    loud = on_a_terminal(command, TERM="xterm-256color", NO_COLOR="")
    quiet = on_a_terminal(command, TERM="xterm-256color", NO_COLOR="1")
    colours = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    assert colours.search(loud)
    assert not colours.search(quiet)
    assert "does not exist" in loud
    assert "does not exist" in quiet


def test_progress_is_silent_away_from_a_terminal(capsys):
    with console.progress_bar() as progress:
        progress("working", 1, 2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("stage", ["PyTorch's reference", "trace", "frame", "mask_head", "verify"])
def test_ctrl_c_during_an_export_leaves_no_half_of_it(tiny_toml, tmp_path, monkeypatch, stage):
    """The interruption comes at the very moment when a stage begins."""

    @contextmanager
    def interrupting():
        def tell(label: str, done: float, total: float | None) -> None:
            if stage in label:
                raise KeyboardInterrupt

        yield tell

    monkeypatch.setattr(export, "progress_bar", interrupting)
    result = mobileinst("export", tiny_toml, "-o", tmp_path / "pair")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.endswith("Interrupted; nothing half written was left behind.\n")
    whole = ["pair"] if stage == "verify" else []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.toml", *whole]


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "Interrupted; nothing half written was left behind.\n"),
        (signal.SIGTERM, 143, "Interrupted; nothing half written was left behind.\n"),
        (signal.SIGHUP, 129, "Interrupted; nothing half written was left behind.\n"),
    ],
)
def test_a_signal_from_outside_leaves_nothing(
    tiny_toml: Path, tmp_path: Path, number: signal.Signals, code: int, words: str
):
    """The signal comes from outside, once the temporary folder is there."""
    process = subprocess.Popen(
        [*MAIN, "export", str(tiny_toml), "-o", str(tmp_path / "pair")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob(".pair-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=90)
    assert process.returncode == code
    assert said == words
    assert [p.name for p in tmp_path.iterdir()] == ["model.toml"]


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("verify {0}", "{0}"),
        ("verify {0}/none", "{0}/none"),
        ("inspect {0}/none.onnx", "{0}/none.onnx"),
        ("export {0}/none.toml -o {0}/pair", "{0}/none.toml"),
        ("export mobileinst-demo --weights {0}/none.pt -o {0}/pair", "{0}/none.pt"),
        (
            "evaluate mobileinst-demo --dataset coco --images {0} --annotations {0}/none.json",
            "{0}/none.json",
        ),
        ("train --config {0}/none.toml --data {0} -o {0}/run", "{0}/none.toml"),
        ("bench {0} --runs nine", "--runs"),
        ("profile {0} --device cpu --serial X", "--serial"),
    ],
)
def test_a_failure_tells_machines_its_place(tmp_path, words, place):
    result = mobileinst(*words.format(tmp_path).split(), "--json")
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == error["exit_code"] == 2
    assert error["where"] == place.format(tmp_path)
