"""Weights stored as float16: half the file, and the same arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from mobileinst_deploy.core.bundle import HALF_WEIGHTS, ExportBundle
from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.rewritten import write_derived
from mobileinst_deploy.quantize.price import Price, measure_price

#: Smaller tensors weigh nothing, and those of transforms must stay exact.
_WORTH_HALVING = 4096


def halve_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights as float16 that the runtime casts to float32 when it loads the graph.

    Half the file, the same speed, and weights rounded to eleven bits. Weights that float16 cannot
    hold stay as they are.

    Args:
        graph: Left as it is.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(graph)
    kept, casts = [], []
    for tensor in halved.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        small = value.dtype != np.float32 or value.size < _WORTH_HALVING
        if small or np.abs(value).max() > np.finfo(np.float16).max:
            kept.append(tensor)
            continue
        name = f"{tensor.name}/half"
        kept.append(onnx.numpy_helper.from_array(value.astype(np.float16), name))
        casts.append(
            onnx.helper.make_node(
                "Cast", [name], [tensor.name], name=f"{tensor.name}/cast", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *halved.graph.node]
    del halved.graph.initializer[:], halved.graph.node[:]
    halved.graph.initializer.extend(kept)
    halved.graph.node.extend(nodes)
    return halved


def halve_pair(bundle: ExportBundle, folder: Path) -> tuple[ExportBundle, Price, Price]:
    """Write a pair whose weights are stored as float16.

    Args:
        bundle: Any pair.
        folder: Where to write.

    Returns:
        The pair, and the price before and after.

    Raises:
        BundleError: Its weights are halved already.
        OutputError: The folder cannot be written or holds something else.
    """
    if bundle.halved:
        raise BundleError(f"{bundle.folder} has float16 weights already", "Use it as it is")
    before = measure_price(bundle)
    graphs = {role: halve_weights(load_graph(bundle.graphs[role].onnx)) for role in ROLES}
    derived = write_derived(bundle, folder, graphs, (HALF_WEIGHTS,))
    return derived, before, measure_price(derived)
