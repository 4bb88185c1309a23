"""Folders are layers: imports point downward only, and PyTorch stays where a network is.

Layers of one line do not know each other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mobileinst_deploy"

#: From the top down.
LAYERS = (
    {"cli"},
    {"workflows"},
    {"optimize", "quantize"},
    {"pair"},
    {"runtimes"},
    {"phone", "training"},
    {"data", "network"},
    {"media", "measure"},
    {"core"},
)
HEIGHT = {name: -depth for depth, layer in enumerate(LAYERS) for name in layer}

#: Where PyTorch may be imported.
TORCH = ("network/", "training/", "runtimes/pytorch.py", "pair/tracing.py")
#: Foreign packages that core may use; msgspec holds documents to their types, scipy solves the
#: assignment of tracks.
CORE_PACKAGES = {"msgspec", "numpy", "scipy"}

MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)
            if node.module == "mobileinst_deploy":
                yield from (f"mobileinst_deploy.{alias.name}" for alias in node.names)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def layers_used(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {n[1] for n in names if n[0] == "mobileinst_deploy" and len(n) > 1}


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_folder_is_a_layer_and_every_module_lies_in_one():
    folders = {p.name for p in PACKAGE.iterdir() if list(p.glob("*.py"))}
    assert folders == set(HEIGHT)
    assert {p.name for p in PACKAGE.glob("*.py")} <= {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_downward(path: Path):
    own = layer_of(path)
    wrong = {used for used in layers_used(path) - {own} if HEIGHT[used] >= HEIGHT[own]}
    assert not wrong, f"{named(path)} reaches from {own} to {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_what_holds_a_network_imports_torch(path: Path):
    if not named(path).startswith(TORCH):
        assert not roots(path) & {"torch", "safetensors", "accelerate"}


@pytest.mark.parametrize("path", [p for p in MODULES if layer_of(p) == "core"], ids=named)
def test_the_core_is_plain_arithmetic(path: Path):
    assert roots(path) - sys.stdlib_module_names <= CORE_PACKAGES | {"mobileinst_deploy"}


def test_the_errors_stand_on_text_alone_and_that_on_nothing():
    core = "mobileinst_deploy.core"
    assert set(imported(PACKAGE / "core" / "errors.py")) == {"__future__", f"{core}.text"}
    assert not {n for n in imported(PACKAGE / "core" / "text.py") if n.startswith(core)}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_module_says_what_it_is_for(path: Path):
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    assert first.endswith((".", "?"))
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")


def test_the_zoo_is_data_only():
    assert not list((PACKAGE.parent / "models").rglob("*.py"))


#: Names with one home, so that a change of one is a change of one line.
HOMES = {
    "core/contract.py": {"mask_logits", "class_logits", "objectness_logits"},
    "core/pair_files.py": {"golden.npz", "frame.onnx", "mask_head.onnx", "instructions.json"},
}


@pytest.mark.parametrize("home", HOMES)
def test_names_of_tensors_and_files_are_written_in_one_place(home: str):
    elsewhere = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in MODULES
        if path != PACKAGE / home
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in HOMES[home]
    ]
    assert elsewhere == []
