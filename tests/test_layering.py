"""Imports point downward: command line, stages, adapters, domain, errors.

A part is a module or a package right below ``mobileinst_deploy``. Parts of one layer may use each
other below the stages; a stage uses no other stage.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mobileinst_deploy"

#: From the bottom up.
LAYERS = {
    "errors": {"errors"},
    # numpy, and scipy for the assignment of tracks
    "domain": {
        "bundle",
        "comparison",
        "drift",
        "files",
        "golden",
        "journal",
        "masks",
        "needs",
        "progress",
        "results",
        "schedule",
        "specs",
        "association",
        "track",
        "zoo",
    },
    # one foreign system each: torch, onnx, onnxruntime, onnxsim, ncnn, cv2, av, adb, qemu, data
    "adapters": {
        "average_precision",
        "checkpoint",
        "datasets",
        "derived",
        "device",
        "encode",
        "geometry",
        "graphs",
        "loading",
        "modeling",
        "ncnn",
        "ort",
        "overlay",
        "pictures",
        "reference",
        "simplify",
        "subject",
        "torchmodel",
        "tracing",
        "trackfile",
        "video",
    },
    # one verb each
    "stages": {
        "bench",
        "device_bench",
        "evaluate",
        "export",
        "locate",
        "optimize",
        "profile",
        "quantize",
        "report",
        "run",
        "train",
        "verify",
        "verify_clip",
    },
    "command line": {"cli"},
}
HEIGHT = {part: height for height, parts in enumerate(LAYERS.values()) for part in parts}
STAGES = LAYERS["stages"]

#: Who may import torch: what holds a network, and training. Nothing that runs an exported pair.
TORCH = {"modeling", "checkpoint", "loading", "reference", "torchmodel", "tracing", "train"}
#: Foreign packages that the domain may use.
DOMAIN_PACKAGES = {"numpy", "scipy"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or
           path.name != "__init__.py"]  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module
            if node.module == "mobileinst_deploy":
                yield from (f"mobileinst_deploy.{alias.name}" for alias in node.names)


def parts_used(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    parts = {name[1] for name in names if name[0] == "mobileinst_deploy" and len(name) > 1}
    return parts - {"__version__", part_of(path)}


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_part_has_its_layer_and_every_layer_its_parts():
    assert {part_of(path) for path in MODULES} == set(HEIGHT)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_downward(path: Path):
    part, used = part_of(path), parts_used(path)
    upward = {other for other in used if HEIGHT[other] > HEIGHT[part]}
    assert not upward, f"{part} ({HEIGHT[part]}) reaches up to {upward}"
    if part in STAGES:
        assert not used & STAGES, f"the stage {part} uses another stage"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_what_holds_a_network_imports_torch(path: Path):
    roots = {name.split(".")[0] for name in imported(path)}
    if part_of(path) not in TORCH:
        assert not roots & {"torch", "safetensors", "accelerate"}


@pytest.mark.parametrize("path", [p for p in MODULES if HEIGHT[part_of(p)] < 2], ids=named)
def test_the_domain_is_plain_arithmetic(path: Path):
    import sys

    roots = {name.split(".")[0] for name in imported(path)}
    assert roots - sys.stdlib_module_names <= DOMAIN_PACKAGES | {"mobileinst_deploy"}


def test_the_errors_stand_on_nothing():
    assert set(imported(PACKAGE / "errors.py")) == {"__future__"}


def test_no_module_is_called_utils():
    assert not [path for path in MODULES if path.stem in ("utils", "util", "helpers", "common")]


def test_the_zoo_is_data_only():
    assert not list((PACKAGE.parent / "models").rglob("*.py"))
