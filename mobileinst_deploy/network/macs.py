"""Multiply-accumulate counts, by the conventions behind the paper's "FLOPs" columns.

Those are fvcore's: a convolution, linear layer or matrix product counts 1 per multiply-accumulate,
without biases; batch normalisation 2 per element, as in eval mode; layer and group normalisation 5
per element; bilinear resize 4 per output and nearest 1; average pooling 1 per input. Everything
else (activations, softmax, max pooling, sums, means along one axis, position tables) counts
nothing.

The network runs once on torch's meta device, where tensors have shapes but no data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mobileinst_deploy.core.config import ModelConfig, check_size
from mobileinst_deploy.core.contract import Role, graph_specs
from mobileinst_deploy.network.kernel_network import KernelNetwork
from mobileinst_deploy.network.mobileinst import MobileInst

PARTS = ("backbone", "projections", "mask decoder", "enhancer", "instance decoder", "masks")
_PREFIXES = {
    "": "masks",
    "backbone": "backbone",
    "mask_decoder": "mask decoder",
    "mask_decoder.projections": "projections",
    "mask_decoder.enhance_x5": "enhancer",
    "mask_decoder.enhance_n5": "enhancer",
    "instance_decoder": "instance decoder",
    "context_projection": "instance decoder",
}


@dataclass(frozen=True)
class MacReport:
    """What one run of a graph costs.

    Attributes:
        role: Which graph was counted.
        image_size: (height, width) in pixels.
        parts: Multiply-accumulates of each part, for MobileInst :data:`PARTS`; their sum is
            :attr:`total`. ``masks`` is the product of kernels and mask features.
        parameters: Number of weights of each part; 0 for parts that the graph leaves out.
    """

    role: Role
    image_size: tuple[int, int]
    parts: Mapping[str, int]
    parameters: Mapping[str, int]

    @property
    def total(self) -> int:
        """Multiply-accumulates of the whole graph."""
        return sum(self.parts.values())

    @property
    def total_parameters(self) -> int:
        """Number of weights the graph reads."""
        return sum(self.parameters.values())


def count_macs(
    config: ModelConfig,
    image_size: tuple[int, int] | None = None,
    role: Role = "frame",
    num_kernels: int | None = None,
    whole_backbone: bool = False,
) -> MacReport:
    """Count a model's multiply-accumulates for one picture. Needs no weights.

    Args:
        config: The model.
        image_size: (height, width), multiples of 64; by default the model's own.
        role: The graph to count.
        num_kernels: n of the mask-head graph, by default all N.
        whole_backbone: Also count what makes X6 where nothing reads it. The network leaves that
            out, but the paper's figures include it: Table 3's local-only rows are 0.53 G above
            what such a network needs.

    Raises:
        ConfigError: ``image_size`` is not a multiple of 64.
    """
    size = config.input_size if image_size is None else image_size
    check_size(size)
    with torch.device("meta"):
        model = MobileInst(config).eval()
        image = torch.empty(1, 3, *size)
        kernels = torch.empty(1, num_kernels or config.num_queries, config.width)
        _, _, *carried = graph_specs(config)["mask_head"].inputs
        context = [torch.empty(*map(int, tensor.shape)) for tensor in carried]
    if whole_backbone:
        model.backbone.register_forward_pre_hook(lambda _, args: (args[0], 6))
    return _count(model, image, kernels, context, role, PARTS, _part)


def count_network_macs(network: KernelNetwork, role: Role = "frame") -> MacReport:
    """Count any kernel network at its own picture size; a part is a direct child of the network.

    Args:
        network: In eval mode and on torch's meta device, where tensors have no data.
        role: The graph to count, the mask head with all N kernels.
    """
    needs = network.needs
    with torch.device("meta"):
        image = torch.empty(1, 3, *needs.input_size)
        kernels = torch.empty(1, needs.num_queries, needs.width)
    parts = (*(name for name, _ in network.named_children()), "masks")
    return _count(
        network, image, kernels, [], role, parts, lambda name: name.partition(".")[0] or "masks"
    )


def _count(
    model: KernelNetwork,
    image: Tensor,
    kernels: Tensor,
    context: list[Tensor],
    role: Role,
    parts: tuple[str, ...],
    part_of: Callable[[str], str],
) -> MacReport:
    counter = _Counter(model, part_of)
    with torch.no_grad(), counter:
        if role == "frame":
            model(image)
        else:
            model.mask_head(image, kernels, context)
    parameters = Counter[str]()
    for name, module in model.named_modules():
        if name in counter.seen:
            own = sum(p.numel() for p in module.parameters(recurse=False))
            parameters[part_of(name)] += own
    return MacReport(
        role,
        (image.shape[2], image.shape[3]),
        {part: counter.macs[part] for part in parts},
        {part: parameters[part] for part in parts},
    )


def _part(name: str) -> str:
    """The part that a module or parameter belongs to, by its dotted name."""
    while name not in _PREFIXES:
        name = name.rpartition(".")[0]
    return _PREFIXES[name]


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up operators under the part of the innermost module that is running."""

    def __init__(self, model: nn.Module, part_of: Callable[[str], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part_of = part_of
        self.macs = Counter[str]()
        self.seen: set[str] = set()
        self.running = [""]
        for name, module in model.named_modules():
            if name:
                module.register_forward_pre_hook(self._enter(name))
                module.register_forward_hook(self._leave)

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def enter(module: nn.Module, args: Any) -> None:
            self.running.append(name)
            self.seen.add(name)

        return enter

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.running.pop()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        rule = _RULES.get(func.overloadpacket)
        if rule is not None:
            self.macs[self.part_of(self.running[-1])] += rule(args, result)
        return result


def _convolution(args: tuple[Any, ...], result: Tensor) -> int:
    # A weight holds (Cout, Cin / groups, kh, kw): each output takes all of one Cout.
    return result.numel() * int(math.prod(args[1].shape[1:]))


def _product(left: int) -> Callable[[tuple[Any, ...], Tensor], int]:
    """Rule for a matrix product whose left factor is argument ``left``."""

    def rule(args: tuple[Any, ...], result: Tensor) -> int:
        return result.numel() * int(args[left].shape[-1])

    return rule


def _per_output(cost: int) -> Callable[[tuple[Any, ...], Any], int]:
    def rule(args: tuple[Any, ...], result: Any) -> int:
        tensor: Tensor = result[0] if isinstance(result, tuple) else result
        return cost * tensor.numel()

    return rule


def _per_input(args: tuple[Any, ...], result: Tensor) -> int:
    return int(args[0].numel())


def _global_mean(args: tuple[Any, ...], result: Tensor) -> int:
    # Torch turns adaptive pooling to one bin into a mean over both axes of the map.
    return _per_input(args, result) if len(args) > 1 and len(args[1]) == 2 else 0


_aten = torch.ops.aten
_RULES: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    _aten.convolution: _convolution,
    _aten.mm: _product(0),
    _aten.bmm: _product(0),
    _aten.addmm: _product(1),
    _aten.baddbmm: _product(1),
    _aten.native_batch_norm: _per_output(2),
    _aten._native_batch_norm_legit_no_training: _per_output(2),
    _aten.cudnn_batch_norm: _per_output(2),
    _aten.native_layer_norm: _per_output(5),
    _aten.native_group_norm: _per_output(5),
    _aten.upsample_bilinear2d: _per_output(4),
    _aten.upsample_nearest2d: _per_output(1),
    _aten._adaptive_avg_pool2d: _per_input,
    _aten.avg_pool2d: _per_input,
    _aten.mean: _global_mean,
}
