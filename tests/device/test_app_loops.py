"""Apps written after docs/picture-to-graph.md and the C header give the tracks of ``run``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import native
import numpy as np
import pytest
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.picture_rules import picture_rules
from mobileinst_deploy.core.zoo import load_model_toml
from mobileinst_deploy.data.shapes import ShapesClip, clip_seed
from mobileinst_deploy.media.letterbox import PADDING, geometry_of
from mobileinst_deploy.network.loading import load_model
from mobileinst_deploy.pair.export import export_model

ROOT = native.SOURCES.parent
SEED = 8
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "picture-to-graph.md").read_text()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracker as the Python example's docstring builds it."""
    folder = tmp_path_factory.mktemp("library")
    text = (EXAMPLES / "app_loop.py").read_text()
    command = re.search(r"^    (g\+\+ .*\\\n.*)$", text, re.MULTILINE)
    assert command
    built = folder / "libmobileinst_track.so"
    line = command[1].replace("libmobileinst_track.so", str(built))
    subprocess.run(["sh", "-c", line], cwd=ROOT, check=True, timeout=300)
    return built


@pytest.fixture(scope="module")
def c_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C example as its head builds it, and under sanitizers."""
    folder = tmp_path_factory.mktemp("app")
    tracker = native.SOURCES.glob("src/track_*.cc")
    include = f"-I{native.SOURCES / 'include'}"
    sanitize = "-fsanitize=address,undefined"
    warn = ("-Wall", "-Wextra", "-Werror", sanitize)
    for command in (
        ["cc", "-std=c11", *warn, include, "-c", EXAMPLES / "app_loop.c"],
        ["c++", "-std=c++17", "-ffp-contract=off", *warn, include, "-c", *tracker],
    ):
        subprocess.run(command, cwd=folder, check=True, timeout=300)
    link = ["c++", sanitize, *folder.glob("*.o"), "-o", "app_loop"]
    subprocess.run(link, cwd=folder, check=True, timeout=300)
    return folder / "app_loop"


def test_the_commands_of_the_page_lead_to_equal_tracks(tmp_path: Path):
    block = (ROOT / "docs" / "app.md").read_text().split("the same:\n\n```\n")[1].split("```")[0]
    for name in ("android_bench", "examples", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    main = f"{sys.executable} -m mobileinst_deploy"
    script = f'set -e\nmobileinst() {{ {main} "$@"; }}\npython() {{ {sys.executable} "$@"; }}\n'
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        ["bash", "-c", script + block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "tracks.json").read_text())


def drawn(folder: Path, frames: int, size: tuple[int, int]) -> Path:
    folder.mkdir()
    for index, frame in enumerate(ShapesClip(clip_seed("test", SEED), frames, size)):
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / f"{index:04}.png"), bgr)
    return folder


def run(pair: Path, pictures: Path, folder: Path, clip_length: int, score: float) -> bytes:
    options = ["-T", str(clip_length), "--score", str(score)]
    done = CliRunner().invoke(app, ["run", str(pair), str(pictures), "-o", str(folder), *options])
    assert done.exit_code == 0, done.output
    return (folder / "tracks.json").read_bytes()


def both_apps(
    pair: Path, pictures: Path, folder: Path, clip_length: int, score: float, *built: Path
) -> tuple[bytes, bytes]:
    """What the Python app and the C app give."""
    library, c_app = built
    folder.mkdir()
    tracks, record = folder / "tracks.json", folder / "record"
    options = ["-T", str(clip_length), "--score", str(score), "--record", record]
    command = [sys.executable, "-P", EXAMPLES / "app_loop.py", pair, pictures, tracks]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}  # no way to this package
    subprocess.run(
        [*command, "--library", library, *options], check=True, timeout=120, cwd=folder, env=clean
    )
    told = subprocess.run(
        [c_app, record, str(score)], check=True, timeout=120, capture_output=True, text=True
    )
    return tracks.read_bytes(), as_tracks(told.stdout, len(list(pictures.iterdir())))


def as_tracks(lines: str, frames: int) -> bytes:
    """The C app's lines in the form of tracks.json."""
    masks: dict[int, list[object]] = {}
    known: dict[int, tuple[float, int]] = {}
    for what, *words in (line.split(" ") for line in lines.splitlines()):
        if what == "track":
            known[int(words[0])] = float(words[2]), int(words[1])
        else:
            frame, identity, height, width = map(int, words[:4])
            place = masks.setdefault(identity, [None] * frames)
            place[frame] = {"size": [height, width], "counts": words[4]}
    tracks = [
        {"video_id": 1, "id": i, "category_id": kind + 1, "score": round(score, 6)}
        | {"segmentations": masks[i]}
        for i, (score, kind) in sorted(known.items(), key=lambda item: (-item[1][0], item[0]))
        if i in masks
    ]
    return ("[" + ",\n".join(map(json.dumps, tracks)) + "]\n").encode()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained pair: random weights make too few tracks to tell rules apart."""
    loaded = load_model("mobileinst-demo")
    if not loaded.trained:
        pytest.skip("the demo model's weights are not here")
    folder = tmp_path_factory.mktemp("demo") / "pair"
    return export_model(loaded, folder, simplify=False).folder


@pytest.mark.parametrize(
    ("size", "clip_length"),
    [((240, 300), 3), ((192, 320), 3), ((100, 90), 1), ((300, 501), 4), ((150, 320), 2)],
    ids=["shrunk", "as it is", "enlarged", "shrunk, wide", "one side fits"],
)
def test_an_app_gives_the_tracks_of_run_byte_for_byte(
    tmp_path: Path, demo: Path, library: Path, c_app: Path, size: tuple[int, int], clip_length: int
):
    pictures = drawn(tmp_path / "pictures", 10, size)
    want = run(demo, pictures, tmp_path / "run", clip_length, 0.3)
    assert len(json.loads(want)) > 1
    got = both_apps(demo, pictures, tmp_path / "app", clip_length, 0.3, library, c_app)
    assert got == (want, want)


@pytest.mark.parametrize("spoil", [lambda b: b[:20], lambda b: b[:-1], lambda b: b"\xff" * len(b)])
def test_the_c_app_tells_of_a_record_that_is_cut_or_wrong(
    tmp_path: Path, pair: ExportBundle, library: Path, c_app: Path, spoil
):
    pictures = drawn(tmp_path / "pictures", 2, (64, 64))
    both_apps(pair.folder, pictures, tmp_path / "app", 3, 0.0, library, c_app)
    record = tmp_path / "app" / "record"
    record.write_bytes(spoil(record.read_bytes()))
    done = subprocess.run([c_app, record], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("app_loop: ")


class TestPage:
    def test_the_block_for_machines_is_the_manifests(self):
        block = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
        assert block == picture_rules(load_model_toml("mobileinst-demo").config)

    @pytest.mark.parametrize("where", ["page", "header", "python app"])
    def test_the_padding_is_said_everywhere(self, where: str):
        text = {
            "page": PAGE,
            "header": (native.SOURCES / "include" / "mobileinst_track.h").read_text(),
            "python app": (EXAMPLES / "app_loop.py").read_text(),
        }[where]
        assert str(PADDING) in text

    def test_the_library_fits_as_the_specification_does(self, library: Path):
        probe = (
            "import ctypes, sys\n"
            "sys.path.insert(0, sys.argv[1])\n"
            "from app_loop import Options\n"
            "library, o = ctypes.CDLL(sys.argv[2]), Options()\n"
            "for line in sys.stdin:\n"
            "    h, w, o.mask_height, o.mask_width = map(int, line.split())\n"
            "    status = library.mobileinst_track_fit(ctypes.byref(o), h, w)\n"
            "    print(status, o.content_height, o.content_width)\n"
        )
        rng = np.random.default_rng(0)
        sizes = np.concatenate(
            [
                rng.integers(1, 3000, (2000, 4)) // [1, 1, 30, 30] + [0, 0, 1, 1],
                [[1, 32768, 8, 8], [32768, 1, 8, 8], [5, 16, 1, 2], [3, 16, 1, 2]],
            ]
        )
        done = subprocess.run(
            [sys.executable, "-c", probe, EXAMPLES, library],
            input="\n".join(" ".join(map(str, row)) for row in sizes.tolist()),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        for row, line in zip(sizes.tolist(), done.stdout.splitlines(), strict=True):
            content = geometry_of((row[0], row[1]), (8 * row[2], 8 * row[3])).content
            assert line == f"0 {content[0]} {content[1]}", row
