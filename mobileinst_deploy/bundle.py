"""The exported pair on disk: two graphs, a manifest that binds them, and golden data.

``manifest.json``, schema 1::

    {"schema": 1, "pair_id": "<16 hex>", "digest": "<sha256 of all the rest>",
     "model": {"id", "config": {ModelConfig}, "trained", "seed", "checkpoint_sha256"},
     "stride": 8, "optimized": [pass names], "tolerance": {Tolerance},
     "graphs": {"frame": {"file", "sha256", "bytes", "opset", "inputs", "outputs"},
                "mask_head": {...}},
     "golden": {"file", "sha256", "bytes"}, "tools": {name: version}}

``golden.npz`` is described at :class:`Golden`. A manifest is untrusted input: :func:`load_bundle`
believes nothing of it that the files beside it do not bear out.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from mobileinst_deploy.errors import BundleError, ConfigError, InputError
from mobileinst_deploy.files import canonical_sha256, sha256_of, write_json
from mobileinst_deploy.specs import (
    MASK_STRIDE,
    ROLES,
    GraphSpec,
    ModelConfig,
    Role,
    TensorSpec,
    Tolerance,
    graph_specs,
)

SCHEMA = 1
MANIFEST = "manifest.json"
GRAPH_FILES: dict[Role, str] = {"frame": "frame.onnx", "mask_head": "mask_head.onnx"}
GOLDEN = "golden.npz"
#: What a folder may hold and still be replaced by a newer export.
BUNDLE_FILES = frozenset(
    {MANIFEST, GOLDEN, *GRAPH_FILES.values(), "parity.json", "latency.json", "eval.json"}
)
_MAX_MANIFEST_BYTES = 4 << 20
_EXPORT_AGAIN = "Export the model again with `mobileinst export`"


@dataclass(frozen=True)
class GraphFile:
    """One graph of a pair.

    Attributes:
        spec: Its signature as the manifest states it.
        path: The ONNX file.
        sha256: Of its bytes.
        bytes: Its size.
        opset: ONNX operator set version.
    """

    spec: GraphSpec
    path: Path
    sha256: str
    bytes: int
    opset: int


@dataclass(frozen=True)
class ExportBundle:
    """An exported pair that has been checked against its manifest.

    Attributes:
        folder: Where it lies.
        pair_id: 16 hex digits that both graphs carry too.
        model_id: The zoo id or the name given by a model.toml.
        config: The network.
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
    config: ModelConfig
    trained: bool
    seed: int | None
    checkpoint_sha256: str | None
    tolerance: Tolerance
    optimized: tuple[str, ...]
    graphs: Mapping[Role, GraphFile]
    golden: Path
    tools: Mapping[str, str]
    sha256: str

    @property
    def weights_note(self) -> str:
        """Where the weights come from, for people."""
        if self.trained:
            return f"trained, sha256 {(self.checkpoint_sha256 or '')[:12]}"
        return f"RANDOM weights (seed {self.seed}); speed is real, masks mean nothing"


@dataclass(frozen=True)
class Golden:
    """The reference made by PyTorch at export; ``verify`` needs neither torch nor weights for it.

    Attributes:
        images: (P, 3, H, W) uint8, RGB. Consecutive pictures form clips.
        keyframe: (P,) int64: for each picture the index of the one whose kernels it reuses; a
            picture that names itself is a keyframe.
        frame: The frame graph's outputs per picture, each (P, ...) float32.
        mask_logits: (P, N, H/8, W/8) float32: the mask-head graph on each picture with the kernels
            of its keyframe.
    """

    images: np.ndarray
    keyframe: np.ndarray
    frame: Mapping[str, np.ndarray]
    mask_logits: np.ndarray

    def image(self, index: int) -> np.ndarray:
        """Picture ``index`` as both graphs take it: (1, 3, H, W) float32, RGB, 0 to 255."""
        picture: np.ndarray = self.images[index : index + 1].astype(np.float32)
        return picture

    def kernels(self, index: int) -> np.ndarray:
        """The kernels (1, N, D) that picture ``index`` reuses."""
        key = int(self.keyframe[index])
        kernels: np.ndarray = self.frame["kernels"][key : key + 1]
        return kernels


def save_golden(path: Path, golden: Golden) -> None:
    """Write the golden data; uncompressed, because float noise does not compress."""
    with path.open("wb") as file:
        np.savez(
            file,
            images=golden.images,
            keyframe=golden.keyframe,
            **{f"frame/{name}": value for name, value in golden.frame.items()},
            **{"mask_head/mask_logits": golden.mask_logits},
        )


def load_golden(bundle: ExportBundle) -> Golden:
    """Read and check a bundle's golden data.

    Raises:
        BundleError: It is unreadable, or its arrays do not fit the model.
    """
    frame_spec = graph_specs(bundle.config)["frame"]
    try:
        with np.load(bundle.golden, allow_pickle=False) as data:
            images = data["images"]
            keyframe = data["keyframe"]
            frame = {t.name: data[f"frame/{t.name}"] for t in frame_spec.outputs}
            mask_logits = data["mask_head/mask_logits"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{bundle.golden} is not readable golden data", _EXPORT_AGAIN) from error
    count = len(images)
    want = {t.name: (count, *t.shape[1:]) for t in frame_spec.outputs}
    fits = (
        count > 0
        and images.dtype == np.uint8
        and images.shape == (count, 3, *bundle.config.input_size)
        and keyframe.dtype == np.int64
        and keyframe.shape == (count,)
        and bool(np.all((keyframe >= 0) & (keyframe < count)))
        and all(frame[n].dtype == np.float32 and frame[n].shape == s for n, s in want.items())
        and mask_logits.dtype == np.float32
        and mask_logits.shape == want["mask_logits"]
    )
    if not fits:
        raise BundleError(f"{bundle.golden} does not fit the model's shapes", _EXPORT_AGAIN)
    if not all(np.isfinite(a).all() for a in (*frame.values(), mask_logits)):
        raise BundleError(f"{bundle.golden} holds values that are not finite", _EXPORT_AGAIN)
    return Golden(images, keyframe, frame, mask_logits)


def write_manifest(
    folder: Path,
    *,
    pair_id: str,
    model_id: str,
    config: ModelConfig,
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
            "config": config.to_dict(),
            "trained": trained,
            "seed": seed,
            "checkpoint_sha256": checkpoint_sha256,
        },
        "stride": MASK_STRIDE,
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
        BundleError: Something is missing, unreadable, edited, or from another export.
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
    rest = {k: v for k, v in document.items() if k != "digest"}
    if document.get("digest") != canonical_sha256(rest):
        raise BundleError(f"{path} was edited after it was written", _EXPORT_AGAIN)
    try:
        return _read(folder, document, sha256_of(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} lacks or misspells a field: {error}", _EXPORT_AGAIN) from error
    except ConfigError as error:
        raise BundleError(f"{path} describes no model: {error.cause}", _EXPORT_AGAIN) from error


def _read(folder: Path, document: dict[str, Any], sha256: str) -> ExportBundle:
    model = document["model"]
    config = ModelConfig.from_dict(model["config"])
    graphs: dict[Role, GraphFile] = {}
    for role in ROLES:
        entry = document["graphs"][role]
        spec = GraphSpec(role, _tensors(entry["inputs"]), _tensors(entry["outputs"]))
        dynamic = any(isinstance(v, str) for t in spec.inputs for v in t.shape)
        if spec != graph_specs(config, dynamic)[role]:
            raise BundleError(
                f"the manifest's {role} graph has other inputs or outputs than its model",
                _EXPORT_AGAIN,
            )
        file = _checked_file(folder, entry)
        graphs[role] = GraphFile(
            spec, file, str(entry["sha256"]), int(entry["bytes"]), int(entry["opset"])
        )
    seed = model["seed"]
    return ExportBundle(
        folder=folder,
        pair_id=str(document["pair_id"]),
        model_id=str(model["id"]),
        config=config,
        trained=bool(model["trained"]),
        seed=None if seed is None else int(seed),
        checkpoint_sha256=model["checkpoint_sha256"],
        tolerance=Tolerance(**document["tolerance"]),
        optimized=tuple(str(name) for name in document["optimized"]),
        graphs=graphs,
        golden=_checked_file(folder, document["golden"]),
        tools={str(k): str(v) for k, v in document["tools"].items()},
        sha256=sha256,
    )


def _checked_file(folder: Path, entry: Mapping[str, Any]) -> Path:
    name = entry["file"]
    if not isinstance(name, str) or PurePath(name).name != name or name in ("", ".", ".."):
        raise BundleError(f"the manifest names {name!r}, a path outside its folder", _EXPORT_AGAIN)
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or not a plain file", _EXPORT_AGAIN)
    try:
        same = path.stat().st_size == entry["bytes"] and sha256_of(path) == entry["sha256"]
    except InputError as error:
        raise BundleError(error.cause, error.next_step) from error
    if not same:
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
