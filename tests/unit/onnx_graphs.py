"""Small graphs to rewrite, written by hand: none of them comes from this project's exporter."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper


class Writer:
    """Builds a graph node by node; weights are random and reproducible."""

    def __init__(self, opset: int = 17, seed: int = 0):
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []

    def input(self, *shape, name="x"):
        self.inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape):
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def node(self, op, *inputs, output=None, **attributes):
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def conv(self, x, channels, outputs, kernel=3, stride=1, groups=1, bias=True, pad=None):
        inputs = [x, self.weight(outputs, channels // groups, kernel, kernel)]
        if bias:
            inputs.append(self.weight(outputs))
        pads = [kernel // 2 if pad is None else pad] * 4 if not isinstance(pad, list) else pad
        shape, strides = [kernel, kernel], [stride, stride]
        return self.node(
            "Conv", *inputs, kernel_shape=shape, pads=pads, strides=strides, group=groups
        )

    def model(self, *outputs):
        graph = helper.make_graph(
            self.nodes,
            "by_hand",
            self.inputs,
            [helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
        return model


def run(model, optimize=False, **feeds):
    """The model's outputs, by default without the runtime's own rewrites."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def feeds_of(model, seed=1, n=3):
    """Random inputs for a model; free axes get the length ``n``."""
    random = np.random.default_rng(seed)
    return {
        v.name: random.standard_normal(
            [d.dim_value or n for d in v.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for v in model.graph.input
    }


def assert_same(before, after, *, atol=1e-5, rtol=1e-4, seeds=(1, 2)):
    """Both models have the same signature and, on random inputs, the same outputs."""
    onnx.checker.check_model(after, full_check=True)
    for side in ("input", "output"):
        names = [[v.name for v in getattr(m.graph, side)] for m in (before, after)]
        assert names[0] == names[1]
    for seed in seeds:
        feeds = feeds_of(before, seed)
        for want, got in zip(run(before, **feeds), run(after, **feeds), strict=True):
            np.testing.assert_allclose(got, want, atol=atol, rtol=rtol)


def ops(model):
    """Operators in a model, in order."""
    return [node.op_type for node in model.graph.node]
