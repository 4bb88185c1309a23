"""`mobileinst run` as a user meets it: files, tables, sentences and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tiny
from PIL import Image

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.pair.export import export_model

TINY = replace(tiny.TINY, classes=("cat", "dog"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "pair"
    source = build_loaded("tiny", TINY, None, seed=0, tolerance=Tolerance())
    export_model(source, folder)
    return folder


def film(path: Path, frames: int, height: int = 48, width: int = 80) -> Path:
    """A clip of a photograph-like gradient with a moving bright disc."""
    rows, columns = np.mgrid[:height, :width]
    ground = np.stack([rows * 3, columns * 2, rows + columns], axis=2).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for number in range(frames):
            picture = ground.copy()
            cv2.circle(picture, (5 + number % 70, 24), 10, (250, 240, 60), -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def mobileinst(capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line."""
    before = sys.argv
    sys.argv = ["mobileinst", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as exit_:
            app()
    finally:
        sys.argv = before
    told = capsys.readouterr()
    return int(exit_.value.code or 0), told.out, " ".join(told.err.split())


def test_a_clip_becomes_an_overlay_tracks_and_a_table(pair, tmp_path, capsys):
    clip = film(tmp_path / "clip.mp4", 7)
    code, out, err = mobileinst(capsys, "run", pair, clip, "--score", 0, "-o", tmp_path / "o")
    assert code == 0
    for word in ("7 frames, 3 keyframes", "graphs", "share", "overlay.mp4"):
        assert word in out
    assert "RANDOM weights" in err
    found = json.loads((tmp_path / "o" / "tracks.json").read_text())
    assert found
    assert all(len(track["segmentations"]) == 7 for track in found)
    with av.open(str(tmp_path / "o" / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 7


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_an_animated_picture_is_followed_as_a_clip_of_its_time_stamps(
    pair, tmp_path, capsys, suffix
):
    times = [40, 200, 80, 40]
    shades = [Image.new("RGB", (80, 48), (shade, 90, 20)) for shade in (10, 80, 150, 220)]
    path = tmp_path / f"clip{suffix}"
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=times)
    code, out, _ = mobileinst(capsys, "run", pair, path, "--score", 0, "-o", tmp_path / "o")
    assert code == 0
    assert "4 frames, 2 keyframes" in out
    with av.open(str(tmp_path / "o" / "overlay.mp4")) as container:
        shown = [round(frame.time * 1000) for frame in container.decode(video=0)]
    assert shown == [0, 40, 240, 320]


@pytest.mark.parametrize(("t", "keyframes"), [("1", 5), ("3", 2), ("5", 1), ("auto", None)])
def test_the_clip_length_is_the_users(pair, tmp_path, capsys, t, keyframes):
    clip = film(tmp_path / "clip.mp4", 5)
    code, out, _ = mobileinst(capsys, "run", pair, clip, "-T", t, "-o", tmp_path / "o", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["schedule"] == t
    assert document == json.loads((tmp_path / "o" / "run.json").read_text())
    if keyframes is not None:
        assert document["keyframes"] == keyframes


def test_an_odd_size_is_told(pair, tmp_path, capsys):
    (tmp_path / "f").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "f" / f"{number}.png"), np.zeros((47, 63, 3), np.uint8))
    code, _, err = mobileinst(capsys, "run", pair, tmp_path / "f", "-o", tmp_path / "o")
    assert code == 0
    assert "Note: the overlay is padded from 47x63 to 48x64" in err


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["{pair}", "{dir}/none.mp4"], "cannot be read: No such file"),
        (["{pair}", "{dir}/empty.mp4"], "cannot be read: it is empty"),
        (["{pair}", "{dir}/text.mp4"], "text.mp4 cannot be read"),
        (["{pair}", "{dir}/nothing"], "holds no picture"),
        (["{dir}", "{dir}/clip.mp4"], "has no manifest.json"),
        (["{pair}", "{dir}/clip.mp4", "-T", "0"], "-T '0' is neither auto nor"),
        (["{pair}", "{dir}/clip.mp4", "-T", "often"], "-T 'often' is neither auto nor"),
        (["{pair}", "{dir}/clip.mp4", "--score", "2"], "score is 2.0, not between 0 and 1"),
        (["{pair}", "{dir}/clip.mp4", "--device", "gpu"], "there is no device 'gpu'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2_and_nothing_written(
    pair, tmp_path, capsys, words, cause
):
    film(tmp_path / "clip.mp4", 1)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "nothing").mkdir()
    words = [word.format(pair=pair, dir=tmp_path) for word in words]
    code, out, err = mobileinst(capsys, "run", *words, "-o", tmp_path / "o")
    assert (code, out) == (2, "")
    assert cause in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_a_clip_cut_short_is_run_to_its_end_and_then_told(pair, tmp_path, capsys):
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((48, 64, 3), np.uint8))
    (folder / "3.png").write_bytes(b"cut")
    code, _, err = mobileinst(capsys, "run", pair, folder, "-o", tmp_path / "o")
    assert code == 2
    assert "3.png is not a readable picture" in err
    assert "the results of 3 frames are in" in err
    assert json.loads((tmp_path / "o" / "run.json").read_text())["frames"] == 3


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_ends_with_130_and_readable_results(pair, tmp_path):
    clip = film(tmp_path / "clip.mp4", 4000)
    command = [sys.executable, "-m", "mobileinst_deploy", "run"]
    folder = tmp_path / "o"
    process = subprocess.Popen(
        [*command, str(pair), str(clip), "-o", str(folder), "--score", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        # Some frames are through once the encoder has written something.
        while not any(p.stat().st_size > 100 for p in folder.glob(".overlay*")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    report = json.loads((folder / "run.json").read_text())
    assert 0 < report["frames"] < 4000
    assert report["stopped"] == "interrupted"
    with av.open(str(folder / "overlay.mp4")) as container:
        written = sum(1 for _ in container.decode(video=0))
    # The frame that was being worked on may be in the film already.
    assert report["frames"] <= written <= report["frames"] + 1
    assert sorted(p.name for p in folder.iterdir()) == [
        "overlay.mp4",
        "run.json",
        "timings.csv",
        "tracks.json",
    ]
