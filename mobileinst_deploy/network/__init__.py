"""The network in PyTorch: backbones, mask decoders, instance decoder, and their MAC count."""

from mobileinst_deploy.network.build import build_model
from mobileinst_deploy.network.initialise import randomize_batchnorm
from mobileinst_deploy.network.kernel_network import (
    Decoded,
    Features,
    FrameOutput,
    KernelNetwork,
    apply_kernels,
)
from mobileinst_deploy.network.mobileinst import MobileInst

__all__ = [
    "Decoded",
    "Features",
    "FrameOutput",
    "KernelNetwork",
    "MobileInst",
    "apply_kernels",
    "build_model",
    "randomize_batchnorm",
]
