"""The exported pair on disk: two graphs, golden data, and a manifest that binds them.

``manifest.json``, schema 1::

    {"schema": 1, "pair_id": "<16 hex>", "digest": "<sha256 of all the rest>",
     "model": {"id", "config": {ModelConfig}, "trained", "seed", "checkpoint_sha256"},
       (a network of other code: "id": "package.module:factory", "needs": {Needs} for "config")
     "stride": 8, "optimized": [pass names], "tolerance": {Tolerance},
     "graphs": {"frame": {"file", "sha256", "bytes", "opset", "inputs", "outputs"},
                "mask_head": {...}},
     "golden": {"file", "sha256", "bytes"}, "tools": {name: version}}

``golden.npz`` is described in :mod:`mobileinst_deploy.core.golden`. A manifest is untrusted input:
:func:`load_bundle` believes nothing of it that the files beside it do not bear out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from mobileinst_deploy.core.config import ModelConfig, Tolerance
from mobileinst_deploy.core.contract import ROLES, GraphSpec, Role, TensorSpec, graph_specs
from mobileinst_deploy.core.errors import BundleError, ConfigError
from mobileinst_deploy.core.files import canonical_sha256, sha256_of, write_json
from mobileinst_deploy.core.golden import GOLDEN, Golden, read_golden
from mobileinst_deploy.core.needs import Description, Needs

SCHEMA = 1
MANIFEST = "manifest.json"
INSTRUCTIONS = "instructions.json"
#: The folder of what was measured of a pair.
RESULTS = "results"
GRAPH_FILES: dict[Role, str] = {"frame": "frame.onnx", "mask_head": "mask_head.onnx"}
#: The pair as pnnx converts it for ncnn, and what it was converted from.
NCNN_FILES: dict[Role, tuple[str, str]] = {
    role: (f"{role}.ncnn.param", f"{role}.ncnn.bin") for role in ROLES
}
NCNN_RECORD = "ncnn.json"
#: What a folder may hold and still be replaced by a newer export.
BUNDLE_FILES = frozenset(
    {
        MANIFEST,
        GOLDEN,
        *GRAPH_FILES.values(),
        RESULTS,
        # Where results were kept up to version 0.1.
        "parity.json",
        "latency.json",
        INSTRUCTIONS,
        "eval.json",
        NCNN_RECORD,
        *(name for names in NCNN_FILES.values() for name in names),
    }
)
_MAX_MANIFEST_BYTES = 4 << 20
_EXPORT_AGAIN = "Export the model again with `mobileinst export`"
_T = TypeVar("_T")


@dataclass(frozen=True)
class GraphFile:
    """One graph of a pair.

    Attributes:
        spec: Its signature as the manifest states it.
        path: The ONNX file, or what was converted from it: ncnn's ``.param``.
        sha256: Of the ONNX file's bytes.
        bytes: Its size.
        opset: ONNX operator set version.
    """

    spec: GraphSpec
    path: Path
    sha256: str
    bytes: int
    opset: int

    @property
    def files(self) -> tuple[Path, ...]:
        """What a runtime reads: the file, and beside ncnn's ``.param`` its ``.bin``."""
        weights = self.path.with_suffix(".bin")
        return (self.path, weights) if self.path.suffix == ".param" else (self.path,)


@dataclass(frozen=True)
class ExportBundle:
    """An exported pair that has been checked against its manifest.

    Attributes:
        folder: Where it lies.
        pair_id: 16 hex digits that both graphs carry too.
        model_id: The zoo id, the name given by a model.toml, or ``package.module:factory``.
        config: The network: MobileInst's configuration, or what another one needs.
        trained: Whether the weights came from training; False means random ones.
        seed: The seed of random weights, else None.
        checkpoint_sha256: Of the weights file, else None.
        tolerance: What ``verify`` allows.
        optimized: Names of graph passes applied after simplification, in order.
        graphs: By role.
        golden: The golden data's file.
        tools: Versions of what made it.
        sha256: Of the manifest's bytes; reports carry it, so that they name what they measured.
    """

    folder: Path
    pair_id: str
    model_id: str
    config: Description
    trained: bool
    seed: int | None
    checkpoint_sha256: str | None
    tolerance: Tolerance
    optimized: tuple[str, ...]
    graphs: Mapping[Role, GraphFile]
    golden: Path
    tools: Mapping[str, str]
    sha256: str

    def metadata(self, role: Role) -> dict[str, str]:
        """What the graph of this role carries in its own ``metadata_props``."""
        return graph_metadata(
            role,
            pair_id=self.pair_id,
            model_id=self.model_id,
            config=self.config,
            seed=self.seed,
            checkpoint_sha256=self.checkpoint_sha256,
            opset=self.graphs[role].opset,
        )

    @property
    def precision(self) -> str:
        """What the graphs compute in: ``fp32``, or ``int8`` after quantising."""
        return "int8" if any("int8" in step for step in self.optimized) else "fp32"

    @property
    def form(self) -> str:
        """Which form of a model's pair this is: ``plain``, ``optimized``, ``half``, ``int8``."""
        steps = set(self.optimized)
        int8, half = self.precision == "int8", "half-weights" in steps
        rewritten = not int8 and bool(steps - {"half-weights"})
        names = (("int8", int8), ("optimized", rewritten), ("half", half))
        return "-".join(name for name, done in names if done) or "plain"

    @property
    def weights_note(self) -> str:
        """Where the weights come from, for people."""
        if self.trained:
            return f"trained, sha256 {(self.checkpoint_sha256 or '')[:12]}"
        return f"RANDOM weights (seed {self.seed}); speed is real, masks mean nothing"


def load_golden(bundle: ExportBundle) -> Golden:
    """Read and check a bundle's golden data.

    Raises:
        BundleError: It is unreadable, or its arrays do not fit the model.
    """
    return read_golden(bundle.golden, bundle.config)


def graph_metadata(
    role: Role,
    *,
    pair_id: str,
    model_id: str,
    config: Description,
    seed: int | None,
    checkpoint_sha256: str | None,
    opset: int,
) -> dict[str, str]:
    """What a graph says of itself, so that it can be told where it belongs when it is alone."""
    height, width = config.input_size
    return {
        "pair_id": pair_id,
        "role": role,
        "model_id": model_id,
        "checkpoint_sha256": checkpoint_sha256 or f"random weights, seed {seed}",
        "input_size": f"{height}x{width}",
        "stride": str(config.mask_stride),
        "classes": "\n".join(config.classes),
        "mean": " ".join(map(str, config.mean)),
        "std": " ".join(map(str, config.std)),
        "opset": str(opset),
    }


def write_manifest(
    folder: Path,
    *,
    pair_id: str,
    model_id: str,
    config: Description,
    trained: bool,
    seed: int | None,
    checkpoint_sha256: str | None,
    tolerance: Tolerance,
    optimized: tuple[str, ...],
    specs: Mapping[Role, GraphSpec],
    opset: int,
    tools: Mapping[str, str],
) -> None:
    """Write ``manifest.json`` for the graphs and golden data that already lie in ``folder``.

    Raises:
        OutputError: The folder cannot be written.
    """
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "pair_id": pair_id,
        "model": {
            "id": model_id,
            "config" if isinstance(config, ModelConfig) else "needs": config.to_dict(),
            "trained": trained,
            "seed": seed,
            "checkpoint_sha256": checkpoint_sha256,
        },
        "stride": config.mask_stride,
        "optimized": list(optimized),
        "tolerance": asdict(tolerance),
        "graphs": {
            role: {
                **_file_entry(folder / GRAPH_FILES[role]),
                "opset": opset,
                "inputs": [_tensor_entry(t) for t in specs[role].inputs],
                "outputs": [_tensor_entry(t) for t in specs[role].outputs],
            }
            for role in ROLES
        },
        "golden": _file_entry(folder / GOLDEN),
        "tools": dict(tools),
    }
    document["digest"] = canonical_sha256(document)
    write_json(folder / MANIFEST, document)


def load_bundle(folder: Path) -> ExportBundle:
    """Read an exported pair and check that manifest and files belong together.

    Raises:
        BundleError: Something is missing, edited, damaged, or from another export.
        InputError: A file cannot be read.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise BundleError(f"{folder} {what}", "Give the folder that `mobileinst export -o` wrote")
    if not path.is_file():
        raise BundleError(
            f"{folder} has no {MANIFEST}", "Give the folder that `mobileinst export -o` wrote"
        )
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is too large to be a manifest", _EXPORT_AGAIN)
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not readable JSON", _EXPORT_AGAIN) from error
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise BundleError(f"{path} is not a manifest of an exported pair", _EXPORT_AGAIN)
    if document["schema"] != SCHEMA:
        raise BundleError(
            f"{path} has schema {document['schema']}, and this version reads schema {SCHEMA}",
            "Use the mobileinst version that wrote it, or export again",
        )
    try:
        digest = canonical_sha256({k: v for k, v in document.items() if k != "digest"})
        if document.get("digest") != digest:
            raise BundleError(f"{path} was edited after it was written", _EXPORT_AGAIN)
        return _read(folder, document, sha256_of(path))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path} lacks or misspells a field: {error}", _EXPORT_AGAIN) from error
    except ConfigError as error:
        raise BundleError(f"{path} describes no model: {error.cause}", _EXPORT_AGAIN) from error


def _read(folder: Path, document: dict[str, Any], sha256: str) -> ExportBundle:
    """A manifest's contents; a field of another type raises TypeError, a missing one KeyError."""
    model = _field(document, "model", dict)
    config: Description
    if "needs" in model:
        config = Needs.from_dict(_field(model, "needs", dict))
    else:
        config = ModelConfig.from_dict(_field(model, "config", dict))
    if _field(document, "stride", int) != config.mask_stride:
        raise BundleError(f"the manifest's stride is not {config.mask_stride}", _EXPORT_AGAIN)
    trained = _field(model, "trained", bool)
    seed = None if trained else _field(model, "seed", int)
    if seed is not None and not 0 <= seed < 1 << 63:
        raise ValueError(f"seed is {seed}")
    checkpoint_sha256 = _field(model, "checkpoint_sha256", str) if trained else None
    graphs: dict[Role, GraphFile] = {}
    for role in ROLES:
        entry = _field(_field(document, "graphs", dict), role, dict)
        inputs, outputs = (_tensors(_field(entry, k, list)) for k in ("inputs", "outputs"))
        spec = GraphSpec(role, inputs, outputs)
        dynamic = any(isinstance(v, str) for t in spec.inputs for v in t.shape)
        if spec != graph_specs(config, dynamic)[role]:
            raise BundleError(
                f"the manifest's {role} graph has other inputs or outputs than its model",
                _EXPORT_AGAIN,
            )
        graphs[role] = GraphFile(
            spec=spec,
            path=_checked_file(folder, entry),
            sha256=_field(entry, "sha256", str),
            bytes=_field(entry, "bytes", int),
            opset=_field(entry, "opset", int),
        )
    return ExportBundle(
        folder=folder,
        pair_id=_field(document, "pair_id", str),
        model_id=_field(model, "id", str),
        config=config,
        trained=trained,
        seed=seed,
        checkpoint_sha256=checkpoint_sha256,
        tolerance=Tolerance(**_field(document, "tolerance", dict)),
        optimized=tuple(str(name) for name in _field(document, "optimized", list)),
        graphs=graphs,
        golden=_checked_file(folder, _field(document, "golden", dict)),
        tools={k: str(v) for k, v in _field(document, "tools", dict).items()},
        sha256=sha256,
    )


def _field(entry: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    value = entry[name]
    # bool is an int to Python; in JSON they are different things.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is {str(value)[:40]!r}")
    return value


def _checked_file(folder: Path, entry: Mapping[str, Any]) -> Path:
    name = _field(entry, "file", str)
    if PurePath(name).name != name or name in ("", ".", ".."):
        raise BundleError(f"the manifest names {name!r}, a path outside its folder", _EXPORT_AGAIN)
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or not a plain file", _EXPORT_AGAIN)
    if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
        raise BundleError(
            f"{path} is not the file that the manifest was written with (sha256 differs)",
            _EXPORT_AGAIN,
        )
    return path


def _tensors(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(e["name"], e["dtype"], tuple(e["shape"])) for e in entries)


def _tensor_entry(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _file_entry(path: Path) -> dict[str, Any]:
    return {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
