"""From a PyTorch network to the pair of ONNX graphs, by PyTorch's own exporter.

The network is traced once. The mask-head graph is cut out of the frame graph between the kernels
and the masks, so that both hold the same nodes and weights, and only one trace is paid for.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.utils
import torch

from mobileinst_deploy.core.contract import DEFAULT_OPSET, KERNELS, GraphSpec, Role
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.network import KernelNetwork


def trace_pair(
    model: KernelNetwork,
    specs: Mapping[Role, GraphSpec],
    image: np.ndarray,
    opset: int = DEFAULT_OPSET,
) -> dict[Role, onnx.ModelProto]:
    """Export both graphs, unsimplified.

    Args:
        model: In eval mode.
        specs: The graphs to write; a symbol in a shape becomes a free axis.
        image: (1, 3, H, W) float32 to trace with; H and W become the graphs' picture size.
        opset: ONNX operator set, one of :data:`~mobileinst_deploy.core.contract.OPSETS`.

    Raises:
        BundleError: PyTorch's exporter failed.
    """
    frame = _trace(model, specs["frame"], image, opset)
    return {"frame": frame, "mask_head": cut_mask_head(frame, specs["mask_head"])}


def _trace(model: KernelNetwork, spec: GraphSpec, image: np.ndarray, opset: int) -> onnx.ModelProto:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The TorchScript exporter announces its retirement at every call; the dynamo one
            # writes no opset below 18 (ADR 1).
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.from_numpy(image),),
                buffer,  # type: ignore[arg-type]  # this exporter writes to files in memory too
                dynamo=False,
                opset_version=opset,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
            )
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(f"PyTorch cannot export it: {reason}", "Try the default opset") from error
    return onnx.load_model_from_string(buffer.getvalue())


def cut_mask_head(frame: onnx.ModelProto, spec: GraphSpec) -> onnx.ModelProto:
    """The part of a frame graph, simplified or not, from the kernels and the picture to the masks.

    Args:
        frame: The frame graph; it stays as it is.
        spec: The mask-head graph's signature.
    """
    cut = onnx.utils.Extractor(frame).extract_model(
        [t.name for t in spec.inputs], [t.name for t in spec.outputs]
    )
    cut.graph.name = spec.role
    cut.producer_name, cut.producer_version = frame.producer_name, frame.producer_version
    # What depends on the kernels was inferred for N of them; the borders say what is free.
    dependent = {KERNELS}
    for node in cut.graph.node:
        if dependent.intersection(node.input):
            dependent.update(node.output)
    if isinstance(spec.inputs[1].shape[1], str):
        _free_reshapes(cut.graph, dependent)
    kept = [value for value in cut.graph.value_info if value.name not in dependent]
    del cut.graph.value_info[:]
    cut.graph.value_info.extend(kept)
    for value, tensor in zip(
        (*cut.graph.input, *cut.graph.output), (*spec.inputs, *spec.outputs), strict=True
    ):
        float32 = onnx.TensorProto.FLOAT
        value.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, float32, tensor.shape))
    return cut


def _free_reshapes(graph: onnx.GraphProto, dependent: set[str]) -> None:
    """Let reshapes of what depends on the kernels keep their number, whatever it is.

    Simplifying a frame graph, where N is fixed, writes N into shapes that PyTorch left open.
    """
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    count = shapes[KERNELS][1]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[0] not in dependent:
            continue
        given, wanted = shapes.get(node.input[0], []), constants.get(node.input[1])
        if wanted is None or len(given) < 2 or given[1] != count:
            continue
        target = onnx.numpy_helper.to_array(wanted).copy()
        if len(target) > 1 and target[1] == count:
            target[1] = 0  # ONNX's word for "as it comes in"
            freed = onnx.numpy_helper.from_array(target, f"{wanted.name}_of_{node.output[0]}")
            graph.initializer.append(freed)
            node.input[1] = freed.name
