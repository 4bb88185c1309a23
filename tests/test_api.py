"""The Python API: every public name is documented, quick to import, and its example runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import SHAPES_TOML, TOLERANCE_TOML, recipe

import mobileinst_deploy
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, write_shapes

NAMES = [name for name in mobileinst_deploy.__all__ if name != "MobileInstError"]


@pytest.fixture(scope="module")
def desk(exported, tmp_path_factory) -> Path:
    """A folder with all that the examples speak of, with tiny networks in it."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "model.toml").write_text(SHAPES_TOML + TOLERANCE_TOML)
    (folder / "train.toml").write_text(recipe(1))
    mobileinst_deploy.export(str(folder / "model.toml"), folder / "pair", verify=False)
    (folder / "clip").mkdir()
    for number in range(4):
        pixels = np.full((48, 64, 3), 40 * number, np.uint8)
        cv2.imwrite(str(folder / "clip" / f"{number}.png"), pixels)
    write_shapes(folder / "shapes", "test", 1, 2, (48, 80))
    (folder / "shapes" / FRAMES).rename(folder / "val")
    (folder / "shapes" / COCO_FILE).rename(folder / "val" / "instances.json")
    return folder


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(recurse=False)
    found = finder.find(mobileinst_deploy, "mobileinst_deploy", globs={})
    for name in NAMES:
        found += finder.find(getattr(mobileinst_deploy, name), name, globs={})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_the_example_in_a_docstring_runs(desk: Path, monkeypatch, example: doctest.DocTest):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("XDG_CACHE_HOME", str(desk / "cache"))
    for step in example.examples:
        # The zoo's smallest model takes a while to export; a tiny one says as much.
        step.source = step.source.replace('export("mobileinst-demo"', 'export("model.toml"')
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)


PACKAGE = Path(mobileinst_deploy.__file__).parent
#: Those of the API, above, have a desk.
WITH_OWN_EXAMPLES = [
    ".".join(("mobileinst_deploy", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
    and ">>>" in (text := path.read_text())
    and ">>> import mobileinst_deploy as" not in text
]


@pytest.mark.parametrize("module", WITH_OWN_EXAMPLES)
def test_the_examples_of_a_module_run_by_themselves(module: str):
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for example in doctest.DocTestFinder().find(importlib.import_module(module)):
        runner.run(example, out=said.append)
    assert runner.tries > 0
    assert not said, "".join(said)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented_and_typed(name: str):
    value = getattr(mobileinst_deploy, name)
    text = inspect.getdoc(value) or ""
    if inspect.isclass(value):
        assert "Attributes:" in text
        return
    assert "Examples:" in text
    assert "Raises:" in text
    signature = inspect.signature(value)
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty
        assert f"{parameter.name}: " in text, f"{name} does not say what {parameter.name} is"


def test_what_is_public_is_what_is_lazily_loaded():
    assert set(mobileinst_deploy.__all__) == set(mobileinst_deploy._HOMES)
    assert set(mobileinst_deploy.__all__) <= set(dir(mobileinst_deploy))
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = mobileinst_deploy.nothing_of_this_name
    tree = ast.parse(Path(mobileinst_deploy.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname or alias.name
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert typed == set(mobileinst_deploy.__all__), "type checkers see the same names"


def test_the_import_is_quick_and_brings_nothing_heavy():
    code = (
        # Processor time: this machine may be busy with other things.
        "import sys, time; begun = time.process_time(); import mobileinst_deploy\n"
        "print(time.process_time() - begun)\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'cv2', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    best = 9.0
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds, heavy = done.stdout.splitlines()
        assert heavy == "[]"
        best = min(best, float(seconds))
    assert best < 0.2


def test_models_answers_within_a_second_and_without_torch():
    code = (
        "import sys, time, mobileinst_deploy; mobileinst_deploy.models()\n"
        "print('torch' in sys.modules, time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    torch, seconds = done.stdout.split()
    assert torch == "False"
    assert float(seconds) < 1


def test_the_module_is_the_command_line():
    command = [sys.executable, "-m", "mobileinst_deploy", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"mobileinst {mobileinst_deploy.__version__}\n"


def test_a_runtime_of_ones_own_is_held_to_the_contract(exported):
    def nonsense(inputs):
        return {"mask_logits": np.zeros((1, 1), np.float32)}

    pair = mobileinst_deploy.load_pair(exported.folder, runtime=(nonsense, nonsense))
    with pytest.raises(mobileinst_deploy.MobileInstError, match="no usable class_logits"):
        mobileinst_deploy.segment(pair, np.zeros((8, 8, 3), np.uint8))


def test_a_clip_gives_what_run_gives(exported, desk: Path, tmp_path: Path):
    """Ids and masks of ``track`` are those in ``tracks.json``, which ``run`` writes."""
    import json

    from mobileinst_deploy.core.masks import encode
    from mobileinst_deploy.workflows.run import run

    run(exported.folder, str(desk / "clip"), tmp_path / "o", clip_length="2", score=0.0)
    written = {}
    for track in json.loads((tmp_path / "o" / "tracks.json").read_text()):
        for index, rle in enumerate(track["segmentations"]):
            if rle is not None:
                written[track["id"], index] = rle
    pair = mobileinst_deploy.load_pair(exported.folder)
    found = {}
    for frame in mobileinst_deploy.track(pair, desk / "clip", clip_length=2, score=0.0):
        for identity, mask in zip(frame.identities.tolist(), frame.masks, strict=True):
            if mask.any():
                found[identity, frame.index] = json.loads(json.dumps(encode(mask)))
    assert found == written
    assert found
