"""A hand-made pair of graphs with the project's signatures, small enough to build in every test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny import TINY

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.contract import GraphSpec, Role, TensorSpec, graph_specs

CONFIG = replace(TINY, input_size=(64, 64), width=4, num_heads=1)
SPECS = graph_specs(CONFIG)
#: The same pair, but that its masks come from what the keyframe's features add to a frame's own.
REUSING = replace(CONFIG, reuse_context="x4")
N, D, C = CONFIG.num_queries, CONFIG.width, CONFIG.num_classes


def picture(seed: int = 0) -> np.ndarray:
    """A noise picture, (1,3,64,64) float32 of whole numbers from 0 to 255."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, 3, *CONFIG.input_size)).astype(np.float32)


def build(
    folder: Path, *, mask_scale: float = 1.0, config: ModelConfig = CONFIG
) -> dict[Role, Path]:
    """Write frame.onnx and mask_head.onnx; ``mask_scale`` may be NaN.

    With :data:`REUSING` mask features are a frame's own plus the context's, of its keyframe.
    """
    specs = graph_specs(config)
    rng = np.random.default_rng(7)
    scale = mask_scale / 255
    weights = {
        "w_features": rng.normal(size=(D, 3, 8, 8)) * 0.01,
        "w_kernels": rng.normal(size=(N * D, D)),
        "w_class": rng.normal(size=(D, C)),
        "w_object": rng.normal(size=(D, 1)),
        "scale": np.array(scale),
    }
    shapes = {"to_kernels": [1, N, D], "to_rows": [1, D, 64], "to_maps": [1, -1, 8, 8]}
    constants = [
        numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()
    ] + [numpy_helper.from_array(np.asarray(v, np.int64), k) for k, v in shapes.items()]

    features = [
        helper.make_node("Mul", ["image", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w_features"], ["features"], strides=[8, 8]),
    ]
    own = []
    used = "features"
    if config.reuse_context != "none":
        own = [
            helper.make_node(
                "MaxPool", ["features"], ["context_p"], kernel_shape=[2, 2], strides=[2, 2]
            ),
            helper.make_node("Neg", ["context_p"], ["context_m"]),
        ]
        used = "mixed"
    mixing = (
        [
            helper.make_node("Mul", ["context_p", "context_p"], ["squares"]),
            helper.make_node("Add", ["squares", "context_m"], ["passed"]),
            helper.make_node("GlobalAveragePool", ["passed"], ["overall"]),
            helper.make_node("Add", ["features", "overall"], ["mixed"]),
        ]
        if own
        else []
    )
    masks = [
        *mixing,
        helper.make_node("Reshape", [used, "to_rows"], ["rows"]),
        helper.make_node("MatMul", ["kernels", "rows"], ["products"]),
        helper.make_node("Reshape", ["products", "to_maps"], ["mask_logits"]),
    ]
    heads = [
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w_kernels"], ["wide"], transB=1),
        helper.make_node("Reshape", ["wide", "to_kernels"], ["kernels"]),
        helper.make_node("MatMul", ["kernels", "w_class"], ["class_logits"]),
        helper.make_node("MatMul", ["kernels", "w_object"], ["objectness_logits"]),
    ]
    nodes: dict[Role, list[onnx.NodeProto]] = {
        "frame": features + heads + own + masks,
        "mask_head": features + masks,
    }
    return {
        role: _save(folder / f"{role}.onnx", specs[role], nodes[role], constants) for role in nodes
    }


def _save(
    path: Path, spec: GraphSpec, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> Path:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        spec.role,
        [_info(t) for t in spec.inputs],
        [_info(t) for t in spec.outputs],
        [c for c in constants if c.name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.shape))
