"""The paper's Tables 1 and 2: which peers are built here, and what the paper measured of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mobileinst_deploy.core.config import check_size
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.needs import CELL
from mobileinst_deploy.core.zoo import load_model_toml
from mobileinst_deploy.network.kernel_network import KernelNetwork
from mobileinst_deploy.network.loading import LoadedModel
from mobileinst_deploy.network.peers.condinst import CondInst
from mobileinst_deploy.network.peers.crossvis import CrossVis
from mobileinst_deploy.network.peers.fastinst import FastInst
from mobileinst_deploy.network.peers.mask2former import Mask2Former
from mobileinst_deploy.network.peers.reproduction import ReproducedMobileInst
from mobileinst_deploy.network.peers.solov2 import LITE, Solov2
from mobileinst_deploy.network.peers.sparseinst import SparseInst
from mobileinst_deploy.network.peers.yolact import Yolact
from mobileinst_deploy.network.user_network import SEED, loaded

Size = tuple[int, int]

#: Where the class names of COCO and of YouTube-VIS 2019 are written: in the zoo's own models.
_COCO, _VIS = "mobileinst-topformer-640", "mobileinst-topformer-vis"


@dataclass(frozen=True)
class Published:
    """One row of the paper.

    Attributes:
        table: 1 (COCO test-dev) or 2 (YouTube-VIS).
        size: What the paper says of the picture's size.
        ms: Milliseconds on one core of a Snapdragon 778G, by TNN.
        ap: AP; for Table 2 of YouTube-VIS 2019.
    """

    table: int
    size: str
    ms: float
    ap: float


@dataclass(frozen=True)
class Peer:
    """A network of Tables 1 and 2.

    Attributes:
        id: Its name on the command line.
        input_size: (height, width) that stands for the paper's size here.
        classes: The zoo's model whose classes it has.
        build: Makes it from classes and a size.
        published: The paper's row, or None where it has none.
        source: Where its published checkpoints come from.
    """

    id: str
    input_size: Size
    classes: str
    build: Callable[[tuple[str, ...], Size], KernelNetwork]
    published: Published | None
    source: str

    def network(self, size: Size | None = None) -> KernelNetwork:
        """Build it, at its own size or at another."""
        return self.build(load_model_toml(self.classes).config.classes, size or self.input_size)

    def weightless(self) -> KernelNetwork:
        """The network where tensors have shapes and no data, to count with."""
        with torch.device("meta"):
            return self.network().eval()


@dataclass(frozen=True)
class NotBuilt:
    """A network of Tables 1 and 2 that is not built here.

    Attributes:
        why: The reason.
        backbone: Of the published figure.
        ap: AP in per cent.
        on: The set that it was measured on.
        source: Who published that; the paper's tables have no mobile latency for any of them.
    """

    why: str
    backbone: str
    ap: float
    on: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


_VIS_2019 = "YouTube-VIS 2019 val"

#: In the paper's tables and without a mobile latency there, so that there is nothing to hold a
#: measurement against.
NOT_BUILT = {
    "mask-rcnn": NotBuilt(
        "no mobile latency in Table 1; boxes that the picture decides say what is computed, which"
        " is no pair of static graphs",
        "ResNet-50", 37.2, "COCO val2017", "AdelaiDet's model zoo, R_50_3x",
    ),
    "masktrack-rcnn": NotBuilt(
        "no mobile latency in Table 2; Mask R-CNN with a head for identities",
        "ResNet-50", 30.3, _VIS_2019, "arXiv 1905.04804",
    ),
    "sipmask": NotBuilt(
        "no mobile latency in Table 2; masks are put together from the quarters of each box",
        "ResNet-50", 33.7, _VIS_2019, "JialeCao001/SipMask, multi-scale training",
    ),
    "sg-net": NotBuilt(
        "no mobile latency in Table 2; masks are made from crops of each box",
        "ResNet-101", 36.3, _VIS_2019, "arXiv 2103.10284",
    ),
    "stmask": NotBuilt(
        "no mobile latency in Table 2; masks of a frame are made with the features of the one"
        " before it",
        "ResNet-50", 33.5, _VIS_2019, "arXiv 2104.05606",
    ),
}  # fmt: skip


def _coco(
    name: str,
    network: Callable[..., KernelNetwork],
    backbone: str,
    size: Size,
    published: Published | None,
    source: str,
) -> Peer:
    build: Callable[..., KernelNetwork] = partial(network, backbone)
    return Peer(f"{name}-{backbone}", size, _COCO, build, published, source)


_SPARSEINST = "hustvl/SparseInst (detectron2)"
_ADELAIDET = "aim-uofa/AdelaiDet (detectron2)"
_SOLO = "WXinlong/SOLO (mmdetection)"
_YOLACT = "dbolya/yolact"

PEERS = {
    peer.id: peer
    for peer in (
        _coco("sparseinst", SparseInst, "resnet-50", (608, 864), Published(1, "608", 1752, 34.7),
              _SPARSEINST),
        _coco("sparseinst", SparseInst, "topformer-base", (640, 896),
              Published(1, "608", 769, 30.0), "none is public"),
        _coco("sparseinst", SparseInst, "mobilenetv2", (608, 864), None, "none is public"),
        _coco("mask2former", Mask2Former, "resnet-50", (640, 896), None,
              "facebookresearch/Mask2Former (detectron2)"),
        _coco("mask2former", Mask2Former, "topformer-base", (640, 896),
              Published(1, "640", 930, 32.0), "none is public"),
        _coco("fastinst", FastInst, "resnet-50", (640, 896), None,
              "junjiehe96/FastInst (detectron2)"),
        _coco("fastinst", FastInst, "topformer-base", (640, 896), Published(1, "640", 965, 31.0),
              "none is public"),
        _coco("yolact", Yolact, "resnet-50", (544, 544), Published(1, "550", 1039, 28.2), _YOLACT),
        _coco("yolact", Yolact, "topformer-base", (576, 576), Published(1, "550", 497, 20.8),
              "none is public"),
        _coco("yolact", Yolact, "mobilenetv2", (544, 544), Published(1, "550", 463, 22.2),
              "none is public"),
        Peer("condinst-resnet-50", (800, 1088), _COCO, partial(CondInst, "resnet-50"),
             Published(1, "800", 4451, 37.8), _ADELAIDET),
        _coco("condinst", CondInst, "topformer-base", (640, 896), Published(1, "640", 1418, 27.0),
              "none is public"),
        Peer("solov2-resnet-50", (640, 896), _COCO,
             partial(Solov2, "resnet-50", origin="adelaidet"), None, _ADELAIDET),
        _coco("solov2", Solov2, "mobilenetv2", (640, 896), Published(1, "640", 1443, 30.5),
              "none is public"),
        Peer("solov2-lite-resnet-50", (448, 640), _COCO,
             partial(Solov2, "resnet-50", variant=LITE), Published(1, "448", 1234, 34.0), _SOLO),
        Peer("solov2-lite-resnet-18", (448, 640), _COCO,
             partial(Solov2, "resnet-18", variant=LITE), Published(1, "448", 693, 30.0), _SOLO),
        Peer("sparseinst-vis-topformer-base", (384, 640), _VIS,
             partial(SparseInst, "topformer-base"), Published(2, "360", 389, 33.3),
             "none is public"),
        Peer("crossvis-resnet-50", (384, 640), _VIS, partial(CrossVis, "resnet-50"),
             Published(2, "360", 981, 34.8), "hustvl/CrossVIS (detectron2)"),
        Peer("crossvis-topformer-base", (384, 640), _VIS, partial(CrossVis, "topformer-base"),
             Published(2, "360", 614, 32.7), "none is public"),
        Peer("mobileinst-reproduction", (640, 896), _COCO, ReproducedMobileInst, None,
             "Ambitious-idiot/MobileInst-Reproduction (detectron2)"),
    )
}  # fmt: skip


def load_peer(name: str, weights: Path | None, size: Size | None) -> LoadedModel:
    """Build a peer and give it its weights.

    Args:
        name: One of :data:`PEERS`.
        weights: A checkpoint in the layout of its :attr:`Peer.source`; None for random ones.
        size: (height, width) in place of its own.

    Raises:
        ConfigError: A variant nobody built, or a size that it cannot have.
        CheckpointError: The weights are unreadable or of another network.
    """
    if name not in PEERS:
        raise ConfigError(
            f"there is no peer {name!r}"
            + (f": {NOT_BUILT[name].why}" if name in NOT_BUILT else ""),
            "`mobileinst models` lists those that are built",
        )
    if size is not None:
        check_size(size, CELL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = PEERS[name].network(size)
    return loaded(name, network, weights)
