"""An exported pair as ncnn networks, made by pnnx from the ONNX files and kept beside them.

Kept are ``frame.ncnn.param``, ``frame.ncnn.bin`` and the same of the mask head, which an app with
ncnn can load as they are, and ``ncnn.json``, which says what they were made from and by. They are
made anew when the pair, the converter or a byte of them is another.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.bundle import ExportBundle, GraphFile
from mobileinst_deploy.core.content import Content, read_content
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.documents import Blame, read_json
from mobileinst_deploy.core.errors import BundleError, DeviceError, InputError
from mobileinst_deploy.core.files import write_atomically, write_json
from mobileinst_deploy.core.pair_files import NCNN_FILES, NCNN_RECORD
from mobileinst_deploy.core.programs import run_program
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.phone.toolchain import Need
from mobileinst_deploy.runtimes.ncnn.network import check_weights, read_param, rename_blobs

INSTALL = f"{sys.executable} -m pip install pnnx"

#: Each graph's ``.param`` and ``.bin``.
Networks = Mapping[Role, tuple[Content, ...]]

_SCHEMA = 1
_LIMIT_S = 900.0
# The smallest map is at 1/64. ncnn's bilinear resize of one row (or column) multiplies what lies
# before it in memory by zero, which is no harm until that is NaN.
_SMALLEST_SIDE = 128
_PLAIN = (
    "Use the plain pair that `mobileinst export` writes: what `optimize` and `quantize` make is for"
    " ONNX Runtime"
)


def as_ncnn(
    bundle: ExportBundle, layers: frozenset[str], progress: Progress = silent
) -> ExportBundle:
    """The pair with its graphs as ncnn networks, converted when that is not done yet.

    Args:
        bundle: The pair as exported.
        layers: The kinds of layer that the runner has.
        progress: Told of each graph.

    Returns:
        The same pair; each graph's ``files`` are a ``.param`` and its ``.bin``.

    Raises:
        DeviceError: pnnx is missing.
        BundleError: pnnx cannot convert a graph, or makes of it what the runner cannot run; or the
            input is so small that ncnn reads memory that it was not given.
        OutputError: The pair's folder cannot be written.
    """
    height, width = bundle.config.input_size
    if min(height, width) < _SMALLEST_SIDE:
        raise BundleError(
            f"ncnn resizes maps of one row wrongly, which an input of {height}x{width} leads to",
            f"Export with --size of at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE}",
        )
    networks = _kept(bundle) or _convert(bundle, layers, progress)
    graphs: dict[Role, GraphFile] = {}
    for role, graph in bundle.graphs.items():
        _check(graph, networks[role], layers)
        graphs[role] = replace(graph, files=networks[role])
    return replace(bundle, graphs=graphs)


def need() -> Need:
    """The converter, for ``mobileinst doctor``."""
    version = converter_version()
    return Need("pnnx", version and f"{version}, {_program()}", INSTALL)


def converter_version() -> str | None:
    """The version of pnnx installed here, or None."""
    try:
        return importlib.metadata.version("pnnx")
    except importlib.metadata.PackageNotFoundError:
        return None


def _kept(bundle: ExportBundle) -> Networks | None:
    """What lies beside the pair, if it was made from it, by this pnnx or where there is none."""
    try:
        blame = Blame(NCNN_RECORD, InputError, "Convert the pair anew")
        document = read_json(bundle.folder / NCNN_RECORD, dict[str, Any], blame)
        networks = {
            role: tuple(read_content(bundle.folder / name) for name in NCNN_FILES[role])
            for role in ROLES
        }
        version = converter_version() or document["pnnx"]
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None
    return networks if document == _record(bundle, networks, version) else None


def _convert(bundle: ExportBundle, layers: frozenset[str], progress: Progress) -> Networks:
    version = converter_version()
    program = _program()
    if version is None or program is None:
        raise DeviceError(
            "pnnx, which converts a pair for ncnn, is not installed", f"Run `{INSTALL}`"
        )
    networks: dict[Role, tuple[Content, ...]] = {}
    with scratch_folder() as scratch:
        for done, role in enumerate(ROLES):
            progress("convert for ncnn", done, len(ROLES))
            fresh = _run_pnnx(program, bundle.graphs[role], scratch, layers)
            networks[role] = tuple(
                Content(bundle.folder / kept, file.data)
                for kept, file in zip(NCNN_FILES[role], fresh, strict=True)
            )
        progress("convert for ncnn", len(ROLES), len(ROLES))
    for role in ROLES:
        for file in networks[role]:
            write_atomically(file.path, partial(_put, file.data))
    write_json(bundle.folder / NCNN_RECORD, _record(bundle, networks, version))
    return networks


def _record(bundle: ExportBundle, networks: Networks, version: str) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "onnx": {role: bundle.graphs[role].sha256 for role in ROLES},
        "pnnx": version,
        "files": {file.name: file.sha256 for role in ROLES for file in networks[role]},
    }


def _put(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _program() -> Path | None:
    # Not the console script: it needs its folder on the path, and the wheel holds the program.
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        return None
    for folder in found.submodule_search_locations:
        for name in ("pnnx", "pnnx.exe"):
            if (Path(folder) / name).is_file():
                return Path(folder) / name
    return None


def _run_pnnx(
    program: Path, graph: GraphFile, folder: Path, layers: frozenset[str]
) -> tuple[Content, ...]:
    """Convert one graph in a scratch folder and give its two files, checked."""
    role = graph.spec.role
    source = graph.onnx.write(folder, f"{role}.onnx")
    # fp16=0: by default pnnx stores weights as fp16.
    done = run_program([str(program), source.name, "fp16=0"], limit_s=_LIMIT_S, cwd=folder)
    if not done.started:
        raise DeviceError(f"pnnx {done.fault}", f"Run `{INSTALL}`")
    if done.code is None:
        raise BundleError(f"pnnx {done.fault} with the {role} graph", _PLAIN)
    param, weights = (folder / f"{role}.ncnn{end}" for end in (".param", ".bin"))
    if done.code or not (param.is_file() and weights.is_file()):
        # Its progress is ruled off with #, its tables with lines; what remains may be a reason.
        said = re.findall(r"^\s*(\w.*)$", done.stdout + done.stderr, re.MULTILINE)
        why = said[-1][:200] if said and done.code >= 0 else f"exit code {done.code}"
        raise BundleError(f"pnnx cannot convert the {role} graph: {why}", _PLAIN)
    rename_blobs(param, _names(graph))
    files = (read_content(param), read_content(weights))
    _check(graph, files, layers)
    return files


def _check(graph: GraphFile, files: tuple[Content, ...], layers: frozenset[str]) -> None:
    role = graph.spec.role
    param, weights = files
    network = read_param(param)
    unknown = sorted({layer.kind for layer in network} - layers)
    if unknown:
        raise BundleError(
            f"pnnx made layers of the {role} graph that the ncnn runner has not:"
            f" {', '.join(unknown)}",
            _PLAIN,
        )
    # ncnn takes every blob that no layer reads for an output.
    read = {blob for layer in network for blob in layer.inputs}
    ends = {blob for layer in network for blob in layer.outputs} - read
    if extra := sorted(ends - {tensor.name for tensor in graph.spec.outputs}):
        raise BundleError(
            f"pnnx made a network of the {role} graph that computes {', '.join(extra)} and reads it"
            " nowhere",
            "Let the network compute nothing that it leaves unread",
        )
    check_weights(network, weights)


def _names(graph: GraphFile) -> Mapping[str, str]:
    """The tensors' names by those of pnnx: it numbers what goes in and out."""
    inputs = {f"in{i}": tensor.name for i, tensor in enumerate(graph.spec.inputs)}
    return inputs | {f"out{i}": tensor.name for i, tensor in enumerate(graph.spec.outputs)}
