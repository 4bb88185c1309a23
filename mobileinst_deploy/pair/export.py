"""A network becomes a pair of ONNX graphs with a manifest and golden data.

``frame`` is the whole network for keyframes. ``mask_head`` applies given kernels to a picture
(paper section 3.4): what only the instance decoder needs is not in it. Both normalise the picture
themselves, so that no app can get that wrong.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.contract import DEFAULT_OPSET, OPSETS, ROLES, graph_specs
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import canonical_sha256, folder_atomically
from mobileinst_deploy.core.golden import save_golden
from mobileinst_deploy.core.pair_files import BUNDLE_FILES, GOLDEN, MANIFEST
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.version import __version__
from mobileinst_deploy.media.pictures import reference_clips
from mobileinst_deploy.network.loading import LoadedModel
from mobileinst_deploy.pair.simplify import require_unchanged, simplify_graph
from mobileinst_deploy.pair.tracing import cut_mask_head, trace_pair
from mobileinst_deploy.pair.writing import write_graphs
from mobileinst_deploy.runtimes.pytorch import make_golden

#: The picture to trace and to check simplification with: it reuses another one's kernels.
_PROBE = 1


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
    if opset not in OPSETS:
        raise ConfigError(
            f"opset {opset} is outside {OPSETS.start} to {OPSETS.stop - 1}",
            f"Use the default, {DEFAULT_OPSET}",
        )
    specs = graph_specs(source.config, dynamic_kernels)
    tools = tool_versions()
    pair_id = _pair_id(source, opset, dynamic_kernels, simplify, tools)
    with folder_atomically(folder, MANIFEST, BUNDLE_FILES) as temporary:
        steps = 2 + len(ROLES)
        progress("export: PyTorch's reference", 0, steps)
        golden = make_golden(source.model, *reference_clips(source.config.input_size))
        save_golden(temporary / GOLDEN, golden)
        progress("export: trace", 1, steps)
        traced = trace_pair(source.model, specs, golden.image(_PROBE), opset)
        graphs = traced
        if simplify:
            frame = simplify_graph(traced["frame"])
            graphs = {"frame": frame, "mask_head": cut_mask_head(frame, specs["mask_head"])}
        for done, role in enumerate(ROLES, start=2):
            progress(f"export: {role}", done, steps)
            if simplify:
                feeds = golden.inputs(role, _PROBE)
                want = {n: a[_PROBE : _PROBE + 1] for n, a in golden.outputs(role).items()}
                data = graphs[role].SerializeToString()
                require_unchanged(data, traced[role], feeds, want, source.tolerance)
        write_graphs(temporary, source, graphs, pair_id=pair_id, specs=specs, tools=tools)
        progress("export: done", steps, steps)
    return load_bundle(folder)


def tool_versions() -> dict[str, str]:
    """Versions of everything that shapes an exported graph."""
    packages = ("torch", "onnx", "onnxsim", "onnxruntime")
    return {
        "mobileinst": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _pair_id(
    source: LoadedModel, opset: int, dynamic_kernels: bool, simplify: bool, tools: dict[str, str]
) -> str:
    """The same weights, options and tools give the same pair, on any machine."""
    return canonical_sha256(
        {
            "model": source.model_id,
            "config": source.config.to_dict(),
            "seed": source.seed,
            "checkpoint": source.checkpoint_sha256,
            "opset": opset,
            "dynamic_kernels": dynamic_kernels,
            "simplify": simplify,
            "tools": tools,
        }
    )[:16]
