"""From a PyTorch network to ONNX, by PyTorch's own exporter."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mobileinst_deploy.errors import BundleError
from mobileinst_deploy.modeling import MobileInst
from mobileinst_deploy.specs import GraphSpec

DEFAULT_OPSET = 17
OPSETS = range(13, 21)


class _MaskHead(nn.Module):
    """The mask-head graph as a module, because the exporter traces ``forward``."""

    def __init__(self, model: MobileInst) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, kernels: Tensor) -> Tensor:
        return self.model.mask_head(image, kernels)


def trace_graph(
    model: MobileInst, spec: GraphSpec, feeds: Mapping[str, np.ndarray], opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """Export one graph, unsimplified, at its configured size.

    Args:
        model: In eval mode.
        spec: The graph to write; a symbol in its shapes becomes a free axis.
        feeds: Its inputs by name, to trace with.
        opset: ONNX operator set, one of :data:`OPSETS`.

    Raises:
        BundleError: PyTorch's exporter failed.
    """
    module = model if spec.role == "frame" else _MaskHead(model)
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
