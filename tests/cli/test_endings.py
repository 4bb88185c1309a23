"""However a command ends, it says so in its exit code and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from endings import ENDING, Workplace, kill_at_random, restored
from tiny import SHAPES_TOML, TOLERANCE_TOML, recipe

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.scratch import held, neighbour, scratch_folder
from mobileinst_deploy.core.zoo import load_model_toml
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, write_shapes
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.pair.export import export_model

COMMAND = [sys.executable, "-m", "mobileinst_deploy"]
NAMES = (
    *("models", "inspect", "export", "verify", "run", "evaluate"),
    *("train", "plan", "optimize", "quantize", "bench", "profile", "new", "compare", "predict"),
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "model.toml").write_text(SHAPES_TOML + TOLERANCE_TOML)
    (folder / "train.toml").write_text(recipe(30).replace("[data]", "[data]\nworkers = 1"))
    entry = load_model_toml(str(folder / "model.toml"))
    source = build_loaded("tiny", entry.config, None, seed=0, tolerance=Tolerance(atol=5e-3))
    export_model(source, folder / "pair")
    shutil.copytree(folder / "pair", folder / "other")
    (folder / "clip").mkdir()
    for number in range(40):
        pixels = np.full((48, 64, 3), 6 * number, np.uint8)
        cv2.imwrite(str(folder / "clip" / f"{number:02}.png"), pixels)
    write_shapes(folder / "shapes", "test", 2, 10, (48, 80))
    (folder / "shapes" / FRAMES).rename(folder / "val")
    (folder / "shapes" / COCO_FILE).rename(folder / "val.json")
    return folder


@pytest.fixture
def place(inputs: Path, tmp_path: Path) -> Iterator[Workplace]:
    with tempfile.TemporaryDirectory() as short:
        workplace = Workplace(inputs, tmp_path / "work", Path(short) / "tmp")
        yield workplace
        workplace.close()


def bad(ends) -> list[str]:
    return [end for end in ends if ": BAD " in end]


def test_a_few_commands_killed_at_random_leave_nothing(place: Workplace):
    ends = kill_at_random(place, ("run", "export", "evaluate"), 6, seed=time.time_ns() % 10**6)
    assert not bad(ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_command_killed_at_random_leaves_nothing(place: Workplace, name: str):
    """200 kills in all; MOBILEINST_KILLS is another number, for each command.

    MOBILEINST_SEED tries other moments.
    """
    seed = int(os.environ.get("MOBILEINST_SEED", "17"))
    kills = int(os.environ.get("MOBILEINST_KILLS", -(-200 // len(NAMES))))
    ends = kill_at_random(place, (name,), kills, seed=seed)
    print(*(f"{count} {end}" for end, count in sorted(ends.items())), sep="\n")
    assert not bad(ends)


def wait_for(found, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_killed_export_left_goes_with_the_next_one(place: Workplace):
    words = place.commands()["export"]
    process = place.start(words)
    wait_for(lambda: list(place.out.glob(".pair-*")), process)
    process.kill()
    process.communicate()
    assert place.left_over()
    again = place.start([*words, "--no-verify"])
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert place.left_over() == []


def killed_while_it_held(tmp_path: Path, program: str) -> None:
    """Run a program that prints a line when it is ready, and kill it then."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_that_was_being_replaced_when_its_writer_died_comes_back(tmp_path: Path):
    killed_while_it_held(
        tmp_path,
        "import time; from pathlib import Path\n"
        "from mobileinst_deploy.core.scratch import held, neighbour\n"
        "pair = Path('pair').absolute(); new = neighbour(pair); new.mkdir()\n"
        "older = new.with_name(new.name + '.older'); older.mkdir(); (older / 'mark').touch()\n"
        "with held(new), held(older): print(flush=True); time.sleep(99)",
    )
    assert not (tmp_path / "pair").exists()
    neighbour(tmp_path / "pair")
    assert [p.name for p in tmp_path.iterdir()] == ["pair"]
    assert (tmp_path / "pair" / "mark").exists()


def test_what_somebody_still_holds_stays(tmp_path: Path):
    mine = neighbour(tmp_path / "file")
    mine.touch()
    os.utime(mine, (0, 0))
    with held(mine), scratch_folder(tmp_path) as folder:
        os.utime(folder, (0, 0))
        neighbour(tmp_path / "file")
        with scratch_folder(tmp_path):
            assert mine.exists()
            assert folder.exists()
    neighbour(tmp_path / "file")
    assert list(tmp_path.iterdir()) == [], "nobody holds it, and it is old"


def test_a_symlink_of_such_a_name_is_not_followed(tmp_path: Path):
    (tmp_path / "precious").mkdir()
    link = neighbour(tmp_path / "file")
    link.symlink_to(tmp_path / "precious")
    os.utime(link, (0, 0), follow_symlinks=False)
    neighbour(tmp_path / "file")
    assert (tmp_path / "precious").is_dir()


@pytest.mark.parametrize("number", ENDING)
def test_run_keeps_what_it_has_at_every_signal_and_says_so(place: Workplace, number):
    words = place.commands()["run"]
    clip = place.folder / "long"
    clip.mkdir()
    for index in range(20000):
        (clip / f"{index}.png").symlink_to(place.inputs / "clip" / "00.png")
    process = place.start([*words[:2], clip, *words[3:]])
    folder = place.out / "run"
    wait_for(lambda: any(folder.glob(".overlay*")), process)
    time.sleep(0.3)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    report = json.loads((folder / "run.json").read_text())
    assert report["stopped"] == "interrupted"
    assert f"The results of {report['frames']} frames are in {folder}." in said
    written = {"overlay.mp4", "run.json", "timings.csv", "tracks.json"}
    assert {p.name for p in folder.iterdir()} == written


def training(place: Workplace) -> tuple[subprocess.Popen[str], list[int]]:
    """A training of many steps that has begun, and its process that reads data."""
    path = place.inputs / "long.toml"
    text = "log_every = 1\nsave_every = 2\n[data]\nworkers = 1"
    path.write_text(recipe(10**5).replace("[data]", text))
    log = place.out / "train" / "training.csv"
    process = place.start(["train", "--config", path, "-o", place.out / "train"])
    wait_for(lambda: log.is_file() and len(log.read_text().splitlines()) > 4, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return process, [int(child) for child in children.split()]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_to_all_processes_of_a_training_ends_it_in_order(place: Workplace, number):
    process, children = training(place)
    assert children
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    kept = rf"Interrupted\. What \d+ steps trained is in {place.out}/train; go on with --resume\."
    assert re.fullmatch(kept, said.splitlines()[-1])
    assert "bug" not in said
    assert place.still_running() == []


def test_a_process_that_reads_data_and_is_killed_ends_the_training_in_a_sentence(place: Workplace):
    process, (child, *_) = training(place)
    os.kill(child, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    said = " ".join(said.split())
    assert "error: a process that reads the data was ended from outside" in said
    assert "Set data.workers lower" in said
    assert "Traceback" not in said
    assert place.still_running() == []


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("json_asked", [False, True])
def test_a_signal_in_the_middle_of_an_import_ends_in_order(inputs: Path, number, json_asked):
    program = (
        "import builtins, os, sys\n"
        "from mobileinst_deploy.cli import main\n"
        "class Late:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == 'onnx': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Late())\n"
        f"sys.argv = ['mobileinst', 'inspect', {str(inputs / 'pair')!r}]\n"
        f"sys.argv += ['--json'] * {json_asked}\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=restored
    )
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == "Interrupted; nothing half written was left behind.\n"
    if json_asked:
        assert json.loads(done.stdout)["error"]["exit_code"] == 128 + number


def test_a_signal_in_an_import_during_the_work_waits_for_its_end(tmp_path: Path):
    (tmp_path / "slow_module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.2)\nwhole = 1"
    )
    program = (
        "import sys, time\n"
        "from mobileinst_deploy.cli import process\n"
        "process.begin(); process.working()\n"
        "try:\n"
        "    import slow_module\n"
        "    time.sleep(5)\n"
        "except KeyboardInterrupt as error:\n"
        "    print(error.exit_code, slow_module.whole)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert done.stdout == "143 1\n", done.stderr


@pytest.mark.parametrize(
    "start",
    [
        "multiprocessing.get_context('fork').Process(target=int).start()",
        "subprocess.Popen(['true'], preexec_fn=int)",
    ],
)
def test_a_signal_while_a_process_is_forked_is_not_lost(start: str):
    program = (
        "import multiprocessing, os, signal, subprocess, time\n"
        "from mobileinst_deploy.cli import process\n"
        "process.begin(); process.working()\n"
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "try:\n"
        f"    {start}\n"
        "    time.sleep(5)\n"
        "except KeyboardInterrupt as error:\n"
        "    print(error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=restored
    )
    assert (done.stdout, done.stderr) == ("143\n", "")


def test_a_forked_child_leaves_signals_to_its_parent():
    program = (
        "import os, signal\n"
        "from mobileinst_deploy.cli import process\n"
        "process.begin(); process.working()\n"
        "if (child := os.fork()) == 0:\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=restored
    )
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_what_nohup_ignores_stays_ignored(inputs: Path):
    process = subprocess.Popen(
        [*COMMAND, "inspect", str(inputs / "pair")],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "mask_head" in out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["models --json", "models", "verify {pair} --json"])
def test_a_stream_that_is_closed_is_no_drama(inputs: Path, tmp_path: Path, closed, words):
    pair = tmp_path / "pair"
    shutil.copytree(inputs / "pair", pair)
    shell = f"{' '.join(COMMAND)} {words.format(pair=pair)} {closed}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("words", ["models --json", "models", "nonsense --json", "--help"])
def test_a_reader_that_leaves_early_changes_no_exit_code(words):
    expected = 2 if words.startswith("nonsense") else 0
    shell = f"{' '.join(COMMAND)} {words} | true; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == str(expected)
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


@pytest.mark.parametrize("words", ["models --json", "models"])
def test_a_full_disk_behind_stdout_is_bad_output(words):
    shell = f"{' '.join(COMMAND)} {words} >/dev/full"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "stdout cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verdict_stands_though_nobody_can_be_told(inputs: Path, tmp_path: Path):
    from forgery import edit_graph, rename

    pair = tmp_path / "pair"
    shutil.copytree(inputs / "pair", pair)
    edit_graph(pair, "frame", lambda g: rename(g, "kernels", "kernel"))
    shell = f"{' '.join(COMMAND)} verify {pair} --json >/dev/full"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1


def in_a_read_only(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command with a folder mounted read-only, which even root cannot write."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system gives no mounts of one's own")
    command = " ".join([*COMMAND, *map(str, words)])
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && {command}"
    return subprocess.run([*unshare, mount], capture_output=True, text=True, timeout=120)


def test_a_pair_on_a_read_only_disk_can_be_verified_measured_and_evaluated(
    inputs: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pair = tmp_path / "pair"
    shutil.copytree(inputs / "pair", pair)
    quick = ["--seconds", 0, "--runs", 2, "--warmup", 0, "--clip-lengths", 1]
    data = ["--images", inputs / "val", "--annotations", inputs / "val.json", "--dataset", "coco"]
    for words, kind in (
        (["verify", pair], "parity"),
        (["evaluate", pair, *data], "eval"),
        (["bench", pair, *quick], "latency"),
    ):
        done = in_a_read_only(pair, *words, "--json")
        # Two runs are too few to be believed, and that is another matter.
        assert done.returncode == (4 if kind == "latency" else 0), done.stderr
        document = json.loads(done.stdout)
        document.pop("error", None)
        (kept,) = (tmp_path / "state").rglob(f"{kind}.json")
        assert json.loads(kept.read_text()) == document
        assert str(kept) in done.stderr.replace("\n", "")
        assert "Read-only file system" in done.stderr
    refused = in_a_read_only(pair, "verify", pair, "--report", pair / "mine.json", "--json")
    assert refused.returncode == 2
    assert set(json.loads(refused.stdout)) == {"error"}
    assert not (pair / "results").exists()
