"""A network becomes a pair of ONNX graphs with a manifest and golden data.

``frame`` is the whole network for keyframes. ``mask_head`` applies given kernels to a picture
(paper section 3.4): what only the instance decoder needs is not in it. Both normalise the picture
themselves, so that no app can get that wrong.
"""

from __future__ import annotations

import io
import platform
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mobileinst_deploy import __version__
from mobileinst_deploy.bundle import (
    BUNDLE_FILES,
    GOLDEN,
    GRAPH_FILES,
    ExportBundle,
    Golden,
    load_bundle,
    save_golden,
    write_manifest,
)
from mobileinst_deploy.errors import BundleError, ConfigError
from mobileinst_deploy.files import canonical_sha256, folder_atomically
from mobileinst_deploy.graphs import set_metadata
from mobileinst_deploy.loading import LoadedModel
from mobileinst_deploy.modeling import MobileInst, apply_kernels
from mobileinst_deploy.pictures import reference_clips
from mobileinst_deploy.progress import Progress, silent
from mobileinst_deploy.simplify import simplify_graph
from mobileinst_deploy.specs import ROLES, GraphSpec, Role, graph_specs

DEFAULT_OPSET = 17
_OPSETS = range(13, 21)


class _MaskHead(nn.Module):
    """The mask-head graph as a module, because the exporter traces ``forward``."""

    def __init__(self, model: MobileInst) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, kernels: Tensor) -> Tensor:
        return self.model.mask_head(image, kernels)


def export_model(
    source: LoadedModel,
    folder: Path,
    *,
    opset: int = DEFAULT_OPSET,
    dynamic_kernels: bool = True,
    simplify: bool = True,
    progress: Progress = silent,
) -> ExportBundle:
    """Export both graphs, their manifest and their golden data into ``folder``, all or nothing.

    Args:
        source: The network and its weights.
        folder: Made, or replaced when it holds an older export and nothing else.
        opset: ONNX operator set, 13 to 20; below 17 layer normalisation becomes several nodes.
        dynamic_kernels: Whether the mask-head graph takes any number of kernels.
        simplify: Whether onnxsim folds constants and shapes.
        progress: Told of each step.

    Raises:
        ConfigError: An opset that PyTorch's exporter cannot write.
        BundleError: PyTorch or onnxsim failed.
        VerificationFailed: Simplification changed the outputs.
        OutputError: The folder cannot be written or holds something else.
    """
    if opset not in _OPSETS:
        raise ConfigError(
            f"opset {opset} is outside {_OPSETS.start} to {_OPSETS.stop - 1}",
            f"Use the default, {DEFAULT_OPSET}",
        )
    specs = graph_specs(source.config, dynamic_kernels)
    tools = tool_versions()
    pair_id = _pair_id(source, opset, dynamic_kernels, simplify, tools)
    with folder_atomically(folder, BUNDLE_FILES) as temporary:
        steps = 1 + len(ROLES) * (1 + simplify)
        progress("export: PyTorch reference", 0, steps)
        golden = make_golden(source.model, *reference_clips(source.config.input_size))
        save_golden(temporary / GOLDEN, golden)
        done = 1
        for role in ROLES:
            progress(f"export: {role}", done, steps)
            graph = _trace(source.model, specs[role], golden, opset)
            done += 1
            if simplify:
                progress(f"export: simplify {role}", done, steps)
                graph = simplify_graph(graph, _feeds(specs[role], golden), source.tolerance)
                done += 1
            set_metadata(graph, _metadata(source, role, pair_id, tools, opset))
            onnx.save(graph, temporary / GRAPH_FILES[role])
        write_manifest(
            temporary,
            pair_id=pair_id,
            model_id=source.id,
            config=source.config,
            trained=source.trained,
            seed=source.seed,
            checkpoint_sha256=source.checkpoint_sha256,
            tolerance=source.tolerance,
            optimized=(),
            specs=specs,
            opset=opset,
            tools=tools,
        )
        progress("export: done", steps, steps)
    return load_bundle(folder)


def make_golden(model: MobileInst, images: np.ndarray, keyframe: np.ndarray) -> Golden:
    """Run PyTorch on pictures: the reference that exported graphs are held to.

    Args:
        model: In eval mode.
        images: (P, 3, H, W) uint8, RGB.
        keyframe: (P,) int64; each picture's keyframe comes no later than itself.
    """
    frames: list[dict[str, np.ndarray]] = []
    reuse: list[np.ndarray] = []
    kernels: list[Tensor] = []
    names = [t.name for t in graph_specs(model.config)["frame"].outputs]
    with torch.inference_mode():
        for index in range(len(images)):
            image = torch.from_numpy(images[index : index + 1]).float()
            features = model.features(image)
            decoded = model.decode(features)
            kernels.append(decoded.kernels)
            outputs = {
                "class_logits": decoded.class_logits,
                "objectness_logits": decoded.objectness_logits,
                "kernels": decoded.kernels,
                "mask_logits": apply_kernels(decoded.kernels, features.mask_features),
            }
            frames.append({name: outputs[name].numpy() for name in names})
            carried = kernels[int(keyframe[index])]
            reuse.append(apply_kernels(carried, features.mask_features).numpy())
    return Golden(
        images=images,
        keyframe=keyframe,
        frame={name: np.concatenate([f[name] for f in frames]) for name in names},
        mask_logits=np.concatenate(reuse),
    )


def trace_graph(
    model: MobileInst, role: Role, *, opset: int = DEFAULT_OPSET, dynamic_kernels: bool = True
) -> onnx.ModelProto:
    """Export one graph of a network in eval mode, unsimplified, at its configured size.

    Raises:
        BundleError: PyTorch's exporter failed.
    """
    spec = graph_specs(model.config, dynamic_kernels)[role]
    golden = make_golden(model, *reference_clips(model.config.input_size))
    return _trace(model, spec, golden, opset)


def tool_versions() -> dict[str, str]:
    """Versions of everything that shapes an exported graph."""
    import onnxruntime
    import onnxsim

    return {
        "mobileinst": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxsim": onnxsim.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _trace(model: MobileInst, spec: GraphSpec, golden: Golden, opset: int) -> onnx.ModelProto:
    module = model if spec.role == "frame" else _MaskHead(model)
    feeds = _feeds(spec, golden)
    dynamic = {
        t.name: {axis: v for axis, v in enumerate(t.shape) if isinstance(v, str)}
        for t in (*spec.inputs, *spec.outputs)
    }
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The TorchScript exporter announces its retirement at every call; the dynamo one
            # writes no opset below 18 (ADR 1).
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(feeds[t.name]) for t in spec.inputs),
                buffer,
                dynamo=False,
                opset_version=opset,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
                dynamic_axes={name: axes for name, axes in dynamic.items() if axes},
            )
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(
            f"PyTorch cannot export the {spec.role} graph: {reason}", "Try the default opset"
        ) from error
    return onnx.load_model_from_string(buffer.getvalue())


def _feeds(spec: GraphSpec, golden: Golden) -> dict[str, np.ndarray]:
    feeds = {"image": golden.image(0), "kernels": golden.kernels(0)}
    return {t.name: feeds[t.name] for t in spec.inputs}


def _pair_id(
    source: LoadedModel, opset: int, dynamic_kernels: bool, simplify: bool, tools: dict[str, str]
) -> str:
    """The same weights, options and tools give the same pair, on any machine."""
    return canonical_sha256(
        {
            "model": source.id,
            "config": source.config.to_dict(),
            "seed": source.seed,
            "checkpoint": source.checkpoint_sha256,
            "opset": opset,
            "dynamic_kernels": dynamic_kernels,
            "simplify": simplify,
            "tools": tools,
        }
    )[:16]


def _metadata(
    source: LoadedModel, role: Role, pair_id: str, tools: dict[str, str], opset: int
) -> dict[str, str]:
    height, width = source.config.input_size
    return {
        "pair_id": pair_id,
        "role": role,
        "model_id": source.id,
        "checkpoint_sha256": source.checkpoint_sha256 or f"random weights, seed {source.seed}",
        "input_size": f"{height}x{width}",
        "stride": "8",
        "classes": "\n".join(source.config.classes),
        "mean": " ".join(map(str, source.config.mean)),
        "std": " ".join(map(str, source.config.std)),
        "opset": str(opset),
        "tools": " ".join(f"{name}=={version}" for name, version in tools.items()),
    }
