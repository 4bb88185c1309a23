"""Frame graphs that load but do not behave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def endless(frame: Path) -> Path:
    """The frame graph with a loop of 2^40 rounds before its picture."""
    model = onnx.load(frame)
    names = ["round", "go", "x"]
    kinds = [(TensorProto.INT64, []), (TensorProto.BOOL, []), (TensorProto.FLOAT, None)]
    infos = [helper.make_tensor_value_info(n, k, s) for n, (k, s) in zip(names, kinds, strict=True)]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Neg", ["x"], ["y"]),
        ],
        "body",
        infos,
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(2**40, np.int64), "rounds"),
            numpy_helper.from_array(np.array(True), "start"),
        ]
    )
    loop = helper.make_node("Loop", ["rounds", "start", "image"], ["turned"], body=body)
    return _before_the_network(model, [loop], "turned", frame.with_name("endless.onnx"))


def greedy(frame: Path) -> Path:
    """The frame graph with a picture that passes through 64 TiB."""
    model = onnx.load(frame)
    model.graph.initializer.append(
        numpy_helper.from_array(np.array([2**20, 2**20, 1, 1, 64], np.int64), "shape")
    )
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "shape"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["again"], keepdims=0),
        helper.make_node("Add", ["image", "again"], ["fed"]),
    ]
    return _before_the_network(model, nodes, "fed", frame.with_name("greedy.onnx"))


def _before_the_network(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], feeds: str, path: Path
) -> Path:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "image":
                node.input[index] = feeds
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.save(model, path)
    return path
