"""Spoiling an exported pair on purpose, and signing it again as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from mobileinst_deploy.core.files import canonical_sha256


def edit_manifest(
    folder: Path, edit: Callable[[dict[str, Any]], Any], *, sign: bool = True
) -> None:
    """Change the manifest; ``sign`` makes its digest fit again, as a forger would."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    edit(document)
    if sign:
        document.pop("digest", None)
        document["digest"] = canonical_sha256(document)
    path.write_text(json.dumps(document))


def edit_graph(folder: Path, role: str, edit: Callable[[onnx.ModelProto], Any]) -> None:
    """Change one graph and make the manifest agree with it."""
    path = folder / f"{role}.onnx"
    graph = onnx.load(path)
    edit(graph)
    onnx.save(graph, path)
    sign_files(folder)


def edit_golden(folder: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change the golden data and make the manifest agree with it."""
    path = folder / "golden.npz"
    with np.load(path) as data:
        arrays = dict(data)
    edit(arrays)
    np.savez(path, **arrays)
    sign_files(folder)


def sign_files(folder: Path) -> None:
    """Make the manifest state the files' present sizes and hashes."""

    def edit(document: dict[str, Any]) -> None:
        for entry in (*document["graphs"].values(), document["golden"]):
            data = (folder / entry["file"]).read_bytes()
            entry["sha256"], entry["bytes"] = hashlib.sha256(data).hexdigest(), len(data)

    edit_manifest(folder, edit)


def constant(graph: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """An initialiser, or the value of a Constant node."""
    for node in graph.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            return node.attribute[0].t
    return next(t for t in graph.graph.initializer if t.name == name)


def change_weights(
    graph: onnx.ModelProto, node: onnx.NodeProto, edit: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Replace the weights that a convolution or matrix product reads."""
    tensor = constant(graph, node.input[1])
    array = edit(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def convolutions(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in graph.graph.node if node.op_type == "Conv"]


def producer(graph: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in graph.graph.node if output in node.output)


def rename(graph: onnx.ModelProto, old: str, new: str) -> None:
    """Give a tensor another name wherever it occurs."""
    for node in graph.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        if value.name == old:
            value.name = new


def insert_after(graph: onnx.ModelProto, output: str, make: Callable[[str, str], list]) -> None:
    """Put nodes between a graph output and what computes it.

    Args:
        graph: The graph.
        output: Name of the output.
        make: Given the name to read and the name to write, makes the nodes.
    """
    inner = f"{output}_inner"
    for node in graph.graph.node:
        for index, name in enumerate(node.output):
            if name == output:
                node.output[index] = inner
        for index, name in enumerate(node.input):
            if name == output:
                node.input[index] = inner
    graph.graph.node.extend(make(inner, output))
