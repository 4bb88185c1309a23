"""The network in PyTorch: backbones, mask decoders, instance decoder, and their MAC count."""

from mobileinst_deploy.network.build import build_model
from mobileinst_deploy.network.initialise import randomize_batchnorm
from mobileinst_deploy.network.instance_decoder import Decoded
from mobileinst_deploy.network.mobileinst import (
    Features,
    FrameOutput,
    MobileInst,
    apply_kernels,
)

__all__ = [
    "Decoded",
    "Features",
    "FrameOutput",
    "MobileInst",
    "apply_kernels",
    "build_model",
    "randomize_batchnorm",
]
