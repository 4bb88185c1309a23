"""The exported pair on disk: two graphs, golden data, and a manifest that binds them.

``manifest.json``, schema 1::

    {"schema": 1, "pair_id": "<16 hex>", "digest": "<sha256 of all the rest>",
     "model": {"id", "config": {ModelConfig}, "trained", "seed", "checkpoint_sha256"},
       (a network of other code: "id": "package.module:factory", "needs": {Needs} for "config")
     "stride": 8, "pictures": {how a picture becomes the input, and outputs instances},
     "optimized": [pass names], "tolerance": {Tolerance},
     "graphs": {"frame": {"file", "sha256", "bytes", "opset", "inputs", "outputs"},
                "mask_head": {...}},
     "golden": {"file", "sha256", "bytes"}, "tools": {name: version}}

``golden.npz`` is described in :mod:`mobileinst_deploy.core.golden`. A manifest is untrusted input:
:func:`load_bundle` believes nothing of it that the files beside it do not bear out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from mobileinst_deploy.core.content import Content, OpenFolder, open_folder
from mobileinst_deploy.core.contract import ROLES, GraphSpec, Role, graph_specs
from mobileinst_deploy.core.documents import (
    JSON_BYTES,
    Blame,
    convert,
    parse_json,
)
from mobileinst_deploy.core.errors import BundleError, InputError
from mobileinst_deploy.core.external_data import fault_of
from mobileinst_deploy.core.files import canonical_sha256
from mobileinst_deploy.core.golden import Golden, read_golden
from mobileinst_deploy.core.manifest import SCHEMA, Manifest
from mobileinst_deploy.core.pair_files import GOLDEN, GRAPH_FILES, MANIFEST
from mobileinst_deploy.core.picture_rules import picture_rules
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.provenance import Provenance
from mobileinst_deploy.core.run_folder import pair_of
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.core.zoo import zoo_ids

#: The step that stores weights as float16.
HALF_WEIGHTS = "half-weights"
#: What every report of another precision than float32 says, by that precision.
NOT_THE_PAPER = {
    "int8": "8-bit: not the paper's protocol, which is float32",
    "fp16": "half-precision arithmetic: not the paper's protocol, which is float32",
}
_READ = (MANIFEST, *GRAPH_FILES.values(), GOLDEN)
# A graph of protobuf has at most 2 GiB.
_MAX_FILE_BYTES = 2 << 30
#: How often a pair is read anew because another took its place meanwhile.
_MOST_READS = 100
_GIVE_FOLDER = "Give the folder that `mobileinst export -o` wrote"
_EXPORT_AGAIN = "Export the model again with `mobileinst export`"


@dataclass(frozen=True)
class GraphFile:
    """One graph of a pair.

    Attributes:
        spec: Its signature as the manifest states it.
        files: What a runtime is given, as it was read and checked: the ONNX file, or what was
            converted from it, ncnn's ``.param`` and ``.bin``.
        sha256: Of the ONNX file's bytes.
        bytes: Its size.
        opset: ONNX operator set version.
    """

    spec: GraphSpec
    files: tuple[Content, ...]
    sha256: str
    bytes: int
    opset: int

    @property
    def onnx(self) -> Content:
        """The ONNX file of a pair that was not converted."""
        return self.files[0]

    @property
    def path(self) -> Path:
        """Where the first file was read."""
        return self.files[0].path


@dataclass(frozen=True)
class ExportBundle(Provenance):
    """An exported pair that has been checked against its manifest.

    Attributes:
        folder: Where it lies.
        pair_id: 16 hex digits that both graphs carry too.
        optimized: Names of graph passes applied after simplification, in order.
        graphs: By role.
        golden: The golden data, as it was read and checked.
        tools: Versions of what made it.
        sha256: Of the manifest's bytes; reports carry it, so that they name what they measured.
        arithmetic: What the runtime computes float32 graphs in: ``fp32``, or ``fp16``.
    """

    folder: Path
    pair_id: str
    optimized: tuple[str, ...]
    graphs: Mapping[Role, GraphFile]
    golden: Content
    tools: Mapping[str, str]
    sha256: str
    arithmetic: Literal["fp32", "fp16"] = "fp32"

    def graph_metadata(self, role: Role) -> dict[str, str]:
        """What the graph of this role says of itself."""
        return self.metadata(role, self.pair_id, self.graphs[role].opset)

    @property
    def specs(self) -> dict[Role, GraphSpec]:
        """The signatures of both graphs."""
        return {role: graph.spec for role, graph in self.graphs.items()}

    @property
    def precision(self) -> str:
        """What is computed in: ``fp32``, ``fp16``, or ``int8`` after quantising."""
        return "int8" if any("int8" in step for step in self.optimized) else self.arithmetic

    @property
    def caveat(self) -> str | None:
        """Why no figure of this pair is by the paper's protocol; None where it may be."""
        return NOT_THE_PAPER.get(self.precision)

    @property
    def halved(self) -> bool:
        """Whether the weights are stored as float16."""
        return HALF_WEIGHTS in self.optimized

    @property
    def form(self) -> str:
        """Which form of a model's pair this is: ``plain``, ``optimized``, ``half``, ``int8``."""
        steps = set(self.optimized)
        int8, half = self.precision == "int8", self.halved
        rewritten = not int8 and bool(steps - {HALF_WEIGHTS})
        names = (("int8", int8), ("optimized", rewritten), ("half", half))
        return "-".join(name for name, done in names if done) or "plain"


def load_golden(bundle: ExportBundle) -> Golden:
    """Read and check a bundle's golden data.

    Raises:
        BundleError: It is unreadable, or its arrays do not fit the model.
    """
    return read_golden(bundle.golden, bundle.config)


@places(0)
def load_bundle(folder: Path) -> ExportBundle:
    """Read an exported pair and check that manifest and files belong together.

    The folder is the pair's, or that of a run that was exported into it. Every file is read once,
    and what was read is what was checked. When the folder is replaced meanwhile, the pair that took
    its place is read.

    Raises:
        BundleError: Something is missing, edited, damaged, or from another export.
        InputError: A file cannot be read.
    """
    folder = pair_of(folder)
    for attempt in range(_MOST_READS):
        try:
            with open_folder(folder, _READ) as opened:
                try:
                    return _load(opened)
                except BundleError:
                    if attempt == _MOST_READS - 1 or not opened.replaced():
                        raise
        except NotADirectoryError:
            raise BundleError(f"{folder} is a file, not a folder", _GIVE_FOLDER) from None
        except FileNotFoundError:
            step = _GIVE_FOLDER
            if str(folder) in zoo_ids():
                step = f"Make a pair of that model first: `mobileinst export {folder} -o pair`"
            raise BundleError(f"{folder} does not exist", step) from None
        except OSError as error:
            raise InputError(
                f"{error.filename or folder} cannot be read: {error.strerror}",
                "Check the path and its permissions",
            ) from error
    raise AssertionError("the loop returns or raises")


def _load(folder: OpenFolder) -> ExportBundle:
    path = folder.path / MANIFEST
    manifest = folder.read(MANIFEST, JSON_BYTES)
    if manifest is None:
        raise BundleError(f"{folder.path} has no {MANIFEST}", _GIVE_FOLDER)
    blame = Blame(str(path), BundleError, _EXPORT_AGAIN)
    if manifest.bytes > JSON_BYTES:
        raise blame.wrong(f"it has more bytes, and {JSON_BYTES:,} are the most")
    document = parse_json(manifest.data, dict[str, Any], blame)
    if document.get("schema") != SCHEMA:
        schema = shown(repr(document.get("schema")), 40)
        raise BundleError(
            f"{path} has schema {schema}, and this version reads schema {SCHEMA}",
            "Use the mobileinst version that wrote it, or export again",
        )
    try:
        digest = canonical_sha256({k: v for k, v in document.items() if k != "digest"})
    except RecursionError:
        raise blame.wrong("it is nested too deeply") from None
    if document.get("digest") != digest:
        raise BundleError(f"{path} was edited after it was written", _EXPORT_AGAIN)
    return _checked(folder, convert(document, Manifest, blame), manifest.sha256)


def _checked(folder: OpenFolder, manifest: Manifest, sha256: str) -> ExportBundle:
    """A manifest's contents, held against its model and the files beside it."""
    model, config = manifest.model, manifest.model.description
    if manifest.stride != config.mask_stride:
        raise BundleError(
            f"the manifest's stride is {manifest.stride}, not {config.mask_stride}", _EXPORT_AGAIN
        )
    # Pairs of version 0.1 carry no rules; they were made for the same ones.
    if manifest.pictures not in (None, picture_rules(config)):
        raise BundleError(
            "the manifest's pictures are prepared, or its instances read, in another way than here",
            "Use the mobileinst version that wrote it, or export again",
        )
    graphs: dict[Role, GraphFile] = {}
    for role in ROLES:
        entry = getattr(manifest.graphs, role)
        spec = GraphSpec(role, entry.inputs, entry.outputs)
        dynamic = any(isinstance(v, str) for t in spec.inputs for v in t.shape)
        if spec != graph_specs(config, dynamic)[role]:
            raise BundleError(
                f"the manifest's {role} graph has other inputs or outputs than its model",
                _EXPORT_AGAIN,
            )
        graphs[role] = GraphFile(
            spec=spec,
            files=(_whole_graph(_checked_file(folder, entry.file, entry.bytes, entry.sha256)),),
            sha256=entry.sha256,
            bytes=entry.bytes,
            opset=entry.opset,
        )
    golden = manifest.golden
    return ExportBundle(
        folder=folder.path,
        pair_id=manifest.pair_id,
        model_id=model.id,
        config=config,
        trained=model.trained,
        seed=None if model.trained else model.seed,
        checkpoint_sha256=model.checkpoint_sha256 if model.trained else None,
        tolerance=manifest.tolerance,
        optimized=manifest.optimized,
        graphs=graphs,
        golden=_checked_file(folder, golden.file, golden.bytes, golden.sha256),
        tools=manifest.tools,
        sha256=sha256,
    )


def _checked_file(folder: OpenFolder, name: str, size: int, sha256: str) -> Content:
    if PurePath(name).name != name or name in (".", "..") or "\0" in name:
        raise BundleError(f"the manifest names {name!r}, a path outside its folder", _EXPORT_AGAIN)
    content = folder.read(name, min(size, _MAX_FILE_BYTES))
    if content is None:
        raise BundleError(f"{folder.path / name} is missing or not a plain file", _EXPORT_AGAIN)
    if content.bytes != size or content.sha256 != sha256:
        raise BundleError(
            f"{folder.path / name} is not the file that the manifest was written with"
            " (sha256 differs)",
            _EXPORT_AGAIN,
        )
    return content


def _whole_graph(graph: Content) -> Content:
    """A graph that keeps nothing in other files and holds no loop."""
    try:
        fault = fault_of(graph.data)
    except ValueError as error:
        raise BundleError(f"{graph.path} is not an ONNX file: {error}", _EXPORT_AGAIN) from None
    if fault is not None:
        raise BundleError(f"{graph.path} {fault}", _EXPORT_AGAIN)
    return graph
