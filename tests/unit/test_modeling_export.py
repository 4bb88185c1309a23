"""The network traces into graphs that a phone takes: few operators, no shape arithmetic."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch

from mobileinst_deploy.network import MobileInst, build_model, randomize_batchnorm

TINY = replace(tiny.TINY, classes=("cat", "dog"), input_size=(128, 192), num_queries=6, width=32)
FORBIDDEN = {"Einsum", "TopK", "Where", "Greater", "If", "Loop", "NonZero"}
SHAPE_ARITHMETIC = {"Shape", "Gather", "Slice", "Range", "ConstantOfShape", "Expand", "Cast"}
VARIANTS = [
    {},
    {"backbone": "seaformer-base"},
    {"backbone": "mobilenetv2"},
    {"enhancer": False},
    {"stages": ("local", "global"), "pool": "avg", "pool_size": 4},
    {"pool_size": 1},
    {"decoder": "fpn"},
    {"decoder": "sparseinst"},
]


class MaskHead(torch.nn.Module):
    def __init__(self, model: MobileInst) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        return self.model.mask_head(image, kernels)


def exported(module: torch.nn.Module, args: tuple, **names) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(module.eval(), args, file, dynamo=False, opset_version=17, **names)
    return file.getvalue()


def operators(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


@pytest.fixture(params=VARIANTS, ids=str)
def model(request) -> MobileInst:
    model = build_model(replace(TINY, **request.param))
    randomize_batchnorm(model, 1)
    return model.eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(0)) * 255


@torch.no_grad()
def test_both_graphs_trace_cleanly_and_agree_with_pytorch(model, image):
    want = model(image)
    live = want.kernels[:, :2]
    frame = exported(model, (image,))
    mask_head = exported(
        MaskHead(model),
        (image, live),
        input_names=["image", "kernels"],
        output_names=["mask_logits"],
        dynamic_axes={"kernels": {1: "n"}, "mask_logits": {1: "n"}},
    )
    for graph in (frame, mask_head):
        ops = operators(graph)
        assert not FORBIDDEN & ops.keys()
        if model.config.decoder != "sparseinst":  # its pooling resizes by odd factors
            assert not SHAPE_ARITHMETIC & ops.keys()
    assert operators(mask_head)["LayerNormalization"] == 0

    session = onnxruntime.InferenceSession(frame, providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    for name, a, b in zip(want._fields[:-1], got, want[:-1], strict=True):  # no context here
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-3, atol=2e-3, err_msg=name)

    session = onnxruntime.InferenceSession(mask_head, providers=["CPUExecutionProvider"])
    for n in (1, 6):
        kernels = want.kernels[:, :n]
        (masks,) = session.run(None, {"image": image.numpy(), "kernels": kernels.numpy()})
        np.testing.assert_allclose(masks, want.mask_logits[:, :n].numpy(), rtol=1e-3, atol=2e-3)


@torch.no_grad()
def test_attention_stays_four_dimensional(image):
    model = build_model(TINY).eval()
    graph = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(exported(model, (image,)))
    ).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in graph.value_info}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == 4 + 2 * len(TINY.stages)
    assert {ranks[node.input[0]] for node in softmaxes} == {4}


@torch.no_grad()
def test_the_mask_head_graph_leaves_out_what_it_does_not_need(image):
    for enhancer, transformer_blocks in ((True, 4), (False, 0)):
        model = build_model(replace(TINY, enhancer=enhancer)).eval()
        ops = operators(exported(MaskHead(model), (image, torch.ones(1, 6, 32))))
        assert ops["Softmax"] == transformer_blocks
