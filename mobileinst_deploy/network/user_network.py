"""A network of the user's own code: found by its name, given its weights, held to the contract.

This runs the user's code, as importing any module does. Nothing else in the package runs code that
a file names: a pair's manifest tells where its network came from, and nobody follows that.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.needs import Needs
from mobileinst_deploy.core.places import places
from mobileinst_deploy.network.checkpoint import load_published
from mobileinst_deploy.network.kernel_network import Decoded, Features, KernelNetwork
from mobileinst_deploy.network.loading import LoadedModel, condition

SEED = 0
#: Nobody knows beforehand how large a network's logits are, and rounding grows with what is summed
#: up: float32 keeps 6e-8 of each term, of which a deep network adds hundreds over and over. So what
#: is allowed grows with each tensor's own largest value. 2e-2 of 574 passes, 2e-2 of 4 does not.
TOLERANCE = Tolerance(atol=5e-3, of_largest=5e-5)
_SEE = "See the contract in mobileinst_deploy.network.KernelNetwork"
_T = TypeVar("_T")


@places(0)
def load_network(name: str, weights: Path | None, size: tuple[int, int] | None) -> LoadedModel:
    """Import a factory, build its network, load its weights and check that it keeps the contract.

    Args:
        name: ``package.module:factory``: something to call without arguments, or with
            ``input_size`` where a size is asked for. The working folder is searched first.
        weights: A state dict of the network, or of the layout that its
            :meth:`~KernelNetwork.own_name` translates; None leaves the weights random.
        size: (height, width) in place of the factory's own.

    Raises:
        ConfigError: There is no such factory, its code fails, or its network breaks the contract.
        CheckpointError: The weights are unreadable or of another network.
    """
    factory = _find(name)
    arguments = {} if size is None else {"input_size": size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _guarded(name, lambda: factory(**arguments))
    if not isinstance(network, KernelNetwork):
        raise ConfigError(f"{name} gives a {type(network).__name__}, not a KernelNetwork", _SEE)
    if not isinstance(getattr(network, "needs", None), Needs):
        raise ConfigError(f"the network of {name} states no needs", "Pass Needs to its base class")
    needs = network.needs
    if size is not None and needs.input_size != size:
        raise ConfigError(
            f"{name} was asked for {_shape(size)} and built {_shape(needs.input_size)}",
            "Let the factory take input_size, or leave --size out",
        )
    return loaded(name, network, weights)


def loaded(name: str, network: KernelNetwork, weights: Path | None) -> LoadedModel:
    """A network with its weights, held to the contract.

    Args:
        name: What the pair will call it.
        network: As built; put into eval mode.
        weights: As for :func:`load_network`.

    Raises:
        ConfigError: It breaks the contract.
        CheckpointError: The weights are unreadable or of another network.
    """
    needs = network.needs
    note = None if weights is None else load_published(network, weights).note
    network.eval()
    check_contract(name, network)
    if weights is None and any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
        _guarded(name, lambda: condition(network, needs.input_size, SEED))
        check_contract(name, network)
    return LoadedModel.of(name, network, needs, weights, seed=SEED, tolerance=TOLERANCE, note=note)


def check_contract(name: str, network: KernelNetwork) -> None:
    """Run a network on one picture and compare what it gives with what it says.

    Args:
        name: For messages.
        network: In eval mode.

    Raises:
        ConfigError: A method fails, or gives something else than the contract wants of it.
    """
    needs = network.needs
    n, d = needs.num_queries, needs.width
    generator = torch.Generator().manual_seed(SEED)
    image = torch.rand(1, 3, *needs.input_size, generator=generator) * 255
    check = _Contract(name)
    features = check.call("features", lambda: network.features(image))
    check.kind("features", features, Features)
    check.tensor("features' mask_features", features.mask_features, None)
    if features.context:
        check.fail("features gives a context, which only MobileInst's reuse frames can take so far")
    decoded = check.call("decode", lambda: network.decode(features))
    check.kind("decode", decoded, Decoded)
    classes = needs.num_classes + (needs.scores == "softmax")
    check.tensor("decode's class_logits", decoded.class_logits, (1, n, classes))
    if needs.scores == "quality":
        check.tensor("decode's objectness_logits", decoded.objectness_logits, (1, n, 1))
    check.tensor("decode's kernels", decoded.kernels, (1, n, d))
    once_more = check.call("decode", lambda: network.decode(features))
    for what, value, before in zip(Decoded._fields, once_more, decoded, strict=True):
        check.same(f"decode's {what}", value, before)
    masks = check.call("masks", lambda: network.masks(decoded.kernels, features.mask_features))
    check.tensor("masks", masks, (1, n, *needs.mask_size))
    one = check.call("masks", lambda: network.masks(decoded.kernels[:, :1], features.mask_features))
    check.tensor("masks of one kernel", one, (1, 1, *needs.mask_size))
    again = check.call("reuse_features", lambda: network.reuse_features(image))
    check.tensor("reuse_features", again, tuple(features.mask_features.shape))
    if not _close(again, features.mask_features):
        # Is it the network, or does it give something else every time?
        anew = check.call("features", lambda: network.features(image))
        check.same("features' mask_features", anew.mask_features, features.mask_features)
        check.fail("reuse_features gives other mask features than features, for one picture")


class _Contract:
    """Asks one thing after the other of a network, and says which one failed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fail(self, cause: str) -> NoReturn:
        raise ConfigError(f"{self.name} breaks the contract: {cause}", _SEE)

    def call(self, method: str, run: Callable[[], _T]) -> _T:
        try:
            with torch.no_grad(), _OnePath(self):
                return run()
        except ConfigError:
            raise
        except Exception as error:  # whatever the user's code raises
            self.fail(f"{method} raises {_told(error)}")

    def kind(self, method: str, value: object, kind: type) -> None:
        if not isinstance(value, kind):
            self.fail(f"{method} gives a {type(value).__name__}, not {kind.__name__}")

    def tensor(self, what: str, value: object, shape: tuple[int, ...] | None) -> None:
        if not isinstance(value, Tensor):
            self.fail(f"{what} is a {type(value).__name__}, not a tensor")
        if value.dtype != torch.float32:
            self.fail(f"{what} is {str(value.dtype).removeprefix('torch.')}, not float32")
        if shape is not None and tuple(value.shape) != shape:
            self.fail(f"{what} has the shape {_shape(value.shape)}, not {_shape(shape)}")
        if not torch.isfinite(value).all():
            self.fail(f"{what} holds values that are not finite")

    def same(self, what: str, value: object, before: object) -> None:
        if isinstance(value, Tensor) and isinstance(before, Tensor) and not _close(value, before):
            self.fail(f"{what} are others each time, of one picture")


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3)


class _OnePath(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what makes a computation follow the values in a picture: a trace keeps one path."""

    _FOLLOWING = (
        torch.ops.aten._local_scalar_dense,
        torch.ops.aten.nonzero,
        torch.ops.aten.masked_select,
        torch.ops.aten._unique2,
    )

    def __init__(self, check: _Contract) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.check = check

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in self._FOLLOWING:
            self.check.fail(
                "what it computes follows the values in a picture "
                f"({func.overloadpacket.__name__.strip('_')}), and one trace keeps one path"
            )
        return func(*args, **(kwargs or {}))


def _find(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute.isidentifier():
        raise ConfigError(
            f"--network {name!r} is not package.module:factory", "Name a module and what to call"
        )
    with _working_folder_first():
        module = _guarded(name, lambda: importlib.import_module(module_name), "cannot be imported")
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(
            f"{module_name} has no {attribute} to call", "Name a function or a class of it"
        )
    found: Callable[..., Any] = factory
    return found


def _guarded(name: str, run: Callable[[], _T], what: str = "cannot be built") -> _T:
    """Run the user's code; what it raises becomes one sentence."""
    try:
        return run()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{name} {what}: {_told(error)}", "Correct the code that it names"
        ) from error


@contextmanager
def _working_folder_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:200].rstrip(".")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "of a single number"
