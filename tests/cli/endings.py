"""Commands as processes that are ended, for the tests of how they end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

#: These end with 4 after as few runs as here.
MEASURING = ("bench", "compare")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def restored() -> None:
    """In the child: the signals' own behaviour, whatever started this test."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)


class Workplace:
    """A folder with inputs that stay and everything else that a command may write.

    Args:
        inputs: Read by the commands.
        folder: Emptied before each command.
        temporary: For temporary files, likewise; a short name, as sockets need it.
    """

    def __init__(self, inputs: Path, folder: Path, temporary: Path) -> None:
        self.inputs = inputs
        self.folder = folder
        self.out, self.temporary = folder / "out", temporary
        self.env = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_DATA_HOME": str(folder / "data"),
        }
        self._started: list[subprocess.Popen[str]] = []
        self.clear()

    def clear(self) -> None:
        for folder in (self.out, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def commands(self) -> Mapping[str, Sequence[object]]:
        pair, out = self.inputs / "pair", self.out
        data = ["--images", self.inputs / "val", "--annotations", self.inputs / "val.json"]
        recipe = ["--config", self.inputs / "train.toml", "-o", out / "train"]
        quick = ["--seconds", 0, "--runs", 30, "--warmup", 0, "--clip-lengths", "1,2"]
        return {
            "models": ["models", "--json"],
            "inspect": ["inspect", pair],
            "export": ["export", self.inputs / "model.toml", "-o", out / "pair"],
            "verify": ["verify", pair, "--report", out],
            "run": ["run", pair, self.inputs / "clip", "-o", out / "run"],
            "evaluate": ["evaluate", pair, "--dataset", "coco", *data, "--report", out],
            "train": ["train", *recipe],
            "optimize": ["optimize", pair, "-o", out / "fast"],
            "quantize": [
                *["quantize", pair, "--images", self.inputs / "clip", "--mask-iou", 0],
                *["-o", out / "int8"],
            ],
            "bench": ["bench", pair, *quick, "--report", out],
            "profile": ["profile", pair, "--runs", 10],
            "compare": ["compare", pair, self.inputs / "other", *quick],
            "predict": ["predict", pair, "--dataset", "coco", *data, "-o", out / "found.json"],
            "new": ["new", out / "mine", *data, "--like", "mobileinst-demo"],
            "plan": ["train", *recipe, "--dry-run"],
        }

    def start(self, words: Sequence[object]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mobileinst_deploy", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self.env,
            start_new_session=True,
            preexec_fn=restored,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """End what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def seconds(self, name: str) -> float:
        """How long a command takes that nobody ends."""
        self.clear()
        began = time.monotonic()
        self.start(self.commands()[name]).communicate(timeout=120)
        return time.monotonic() - began

    def left_over(self) -> list[str]:
        """Temporary files and folders, wherever they lie."""
        hidden = [p.name for p in self.out.rglob(".*")]
        return hidden + [p.name for p in self.temporary.iterdir()]

    def still_running(self) -> list[str]:
        """Processes that a command left: those that have this place's folder for temporary files.

        By their environment, since what runs a program of its own may give it a session, too.
        """
        mark, found = f"TMPDIR={self.temporary}\0".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found.append((process / "comm").read_text().strip())
            except OSError:  # it has ended, or is another user's
                continue
        return found


def kill_at_random(place: Workplace, names: Sequence[str], kills: int, seed: int) -> Counter[str]:
    """End commands at random moments and say how each ended; what is wrong begins with ``BAD``.

    Half of the signals go to the command alone, as by ``kill``. The others go to its processes all
    at once, as by Ctrl-C, ``timeout`` and what schedules jobs.
    """
    chance, ends = random.Random(seed), Counter[str]()
    whole = {name: place.seconds(name) for name in names}
    for number in range(kills):
        name = names[number % len(names)]
        ending = chance.choice(ENDING)
        # Python itself starts within this; before its handlers are there nobody can be told.
        wait = chance.uniform(0.1, max(0.2, whole[name]))
        place.clear()
        process = place.start(place.commands()[name])
        time.sleep(wait)
        if chance.random() < 0.5:
            process.send_signal(ending)
        elif process.poll() is None:
            os.killpg(process.pid, ending)
        try:
            _, said = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            said = "it did not end"
        good = {0, 128 + ending} | ({4} if name in MEASURING else set())
        wrong = [word for word in ("Traceback", "Exception ignored", "has a bug") if word in said]
        left = place.left_over() + place.still_running()
        if process.returncode not in good or wrong or left:
            end = f"BAD {ending.name} at {wait:.2f} s: exit {process.returncode}, {left}, {said}"
        else:
            end = "by the signal" if process.returncode > 100 else "before it"
        ends[f"{name}: {end}"] += 1
    return ends
