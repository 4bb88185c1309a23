"""A pair that is open: what is in a picture, and what goes through a clip, a frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.core.contract import Call, GraphRunner, GraphSpec, Role, Tensors
from mobileinst_deploy.core.pair_files import MANIFEST
from mobileinst_deploy.core.run_folder import upright_of
from mobileinst_deploy.core.schedule import Schedule, parse_schedule
from mobileinst_deploy.core.tracker import TrackedFrame, Tracker, TrackSettings, settings_of
from mobileinst_deploy.media.letterbox import Geometry, is_upright, prepare, unfit_masks
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.runtimes import open_host

#: One graph of a runtime of one's own: its inputs by tensor name to its outputs by tensor name.
Graph = Callable[[Tensors], Tensors]

SCORE = TrackSettings().score


@dataclass(frozen=True)
class Pair:
    """An exported pair and what computes its graphs.

    Attributes:
        bundle: The pair on disk, checked against its manifest.
        runner: Computes its graphs.
        upright: The pair for upright pictures that lies beside it, if there is one.
    """

    bundle: ExportBundle
    runner: GraphRunner = field(repr=False)
    upright: Pair | None = field(default=None, repr=False)

    def fitting(self, picture: np.ndarray) -> Pair:
        """Itself, or the pair for upright pictures where there is one and the picture is."""
        return self.upright if self.upright and is_upright(picture.shape) else self

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return self.bundle.config.classes

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels that every picture is fitted into."""
        return self.bundle.config.input_size


@dataclass(frozen=True)
class Frame:
    """What was found in one picture; k instances, k from 0 up.

    Attributes:
        index: Number of the frame in its clip, from 0.
        keyframe: Whether the frame graph ran; otherwise its keyframe's kernels were reused.
        picture: (H, W, 3) uint8, RGB, as it was handed over.
        masks: (k, H, W) bool, at the picture's own size; empty where an instance is not seen.
        identities: (k,) int64, from 1 up, ascending; the same instance keeps its number.
        classes: The k names of their classes.
        scores: (k,) float32 in [0, 1], over all keyframes so far.
    """

    index: int
    keyframe: bool
    picture: np.ndarray = field(repr=False)
    masks: np.ndarray = field(repr=False)
    identities: np.ndarray
    classes: tuple[str, ...]
    scores: np.ndarray


def load_pair(
    folder: str | Path,
    *,
    runtime: str | tuple[Graph, Graph] = "onnxruntime",
) -> Pair:
    """Open an exported pair, for :func:`segment` and :func:`track`.

    Args:
        folder: What :func:`export` wrote. A pair for upright pictures that lies beside it is opened
            as well, and used for them.
        runtime: What computes the graphs on this machine: ``"onnxruntime"``, ``"ncnn"``, or two
            functions of your own, for the frame graph and the mask-head graph. Each takes the
            graph's inputs as a mapping from tensor name to float32 array and gives its outputs
            likewise; ``mobileinst inspect`` shows names and shapes.

    Raises:
        BundleError: The folder is no exported pair, or its files are not those of its manifest.
        ConfigError: There is no such runtime.
        DeviceError: What ncnn needs is missing.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> pair = mobileinst.load_pair("pair")
        >>> len(pair.input_size)
        2

        With a runtime of your own, here ONNX Runtime once more:

        >>> import onnxruntime
        >>> def graph(file):
        ...     session = onnxruntime.InferenceSession(file)
        ...     names = [output.name for output in session.get_outputs()]
        ...     return lambda inputs: dict(zip(names, session.run(names, dict(inputs))))
        >>> own = graph("pair/frame.onnx"), graph("pair/mask_head.onnx")
        >>> for frame in mobileinst.track(mobileinst.load_pair("pair", runtime=own), "clip"):
        ...     print(frame.index, frame.keyframe)
        0 True
        1 False
        2 False
        3 True
    """
    bundle = load_bundle(Path(folder))
    if not isinstance(runtime, str):
        return Pair(bundle, _Functions(bundle, *runtime))
    other, upright = upright_of(Path(folder)), None
    if (other / MANIFEST).is_file():
        turned = load_bundle(other)
        upright = Pair(turned, open_host(turned, runtime))
    return Pair(bundle, open_host(bundle, runtime), upright)


def segment(pair: Pair, picture: np.ndarray, *, score: float = SCORE) -> Frame:
    """Find the instances in one picture.

    Args:
        pair: From :func:`load_pair`.
        picture: (H, W, 3) uint8, RGB, of any size.
        score: Lowest score of an instance, in [0, 1].

    Raises:
        MediaError: The picture is not of that form.
        DeviceError: The runtime failed.

    Examples:
        >>> import numpy as np
        >>> import mobileinst_deploy as mobileinst
        >>> pair = mobileinst.load_pair("pair")
        >>> picture = np.zeros((48, 64, 3), np.uint8)  # or cv2.imread(...)[..., ::-1]
        >>> found = mobileinst.segment(pair, picture, score=0.5)
        >>> found.masks.shape[1:]
        (48, 64)
        >>> len(found.classes) == len(found.scores) == len(found.masks)
        True
    """
    (frame,) = track(pair, [picture], clip_length=1, score=score)
    return frame


def track(
    pair: Pair,
    clip: str | Path | Iterable[np.ndarray],
    *,
    clip_length: int | str = 3,
    score: float = SCORE,
    association: str = "remembering",
) -> Iterator[Frame]:
    """Follow the instances through a clip: kernel reuse and association (paper 3.4 and 3.5).

    One picture is in memory at a time, however long the clip.

    Args:
        pair: From :func:`load_pair`.
        clip: A video, a picture, a folder of pictures, or pictures (H, W, 3) uint8, RGB, of one
            size.
        clip_length: T: a keyframe, then T-1 reuse frames; or ``"auto"``, a keyframe when the scene
            asks for one.
        score: Lowest score of an instance, in [0, 1].
        association: ``remembering``, or the paper's ``consecutive``; see
            :func:`~mobileinst_deploy.core.tracker.settings_of`.

    Yields:
        One result per picture, as soon as it is there.

    Raises:
        ConfigError: ``clip_length`` or ``score`` is out of range, or there is no such association.
        MediaError: The clip cannot be read; results of the pictures before have been given.
        DeviceError: The runtime failed.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> pair = mobileinst.load_pair("pair")
        >>> for frame in mobileinst.track(pair, "clip", clip_length=2):
        ...     print(frame.index, frame.keyframe, frame.picture.shape)
        0 True (48, 64, 3)
        1 False (48, 64, 3)
        2 True (48, 64, 3)
        3 False (48, 64, 3)
    """
    schedule = parse_schedule(str(clip_length))
    settings = settings_of(association, score)
    if isinstance(clip, str | Path):
        pictures: Iterable[np.ndarray] = (picture.pixels for picture in open_clip(str(clip)))
    else:
        pictures = clip
    return _frames(pair, schedule, settings, pictures)


def _frames(
    pair: Pair, schedule: Schedule, settings: TrackSettings, pictures: Iterable[np.ndarray]
) -> Iterator[Frame]:
    tracker = None
    for picture in pictures:
        if tracker is None:
            pair = pair.fitting(picture)
            tracker = Tracker(pair.runner, schedule, settings)
        result, masks = step(tracker, *prepare(picture, pair.input_size))
        yield Frame(
            index=result.index,
            keyframe=result.keyframe,
            picture=picture,
            masks=masks,
            identities=result.ids,
            classes=tuple(pair.classes[index] for index in result.classes),
            scores=result.scores,
        )


def _untimed(name: str) -> AbstractContextManager[None]:
    del name
    return nullcontext()


def step(
    tracker: Tracker,
    image: np.ndarray,
    geometry: Geometry,
    stage: Callable[[str], AbstractContextManager[None]] = _untimed,
) -> tuple[TrackedFrame, np.ndarray]:
    """A prepared picture's way: tracked, and its masks back at its own size.

    Args:
        tracker: Follows the clip.
        image: (1, 3, H, W) float32, from :func:`~mobileinst_deploy.media.letterbox.prepare`.
        geometry: From there, too.
        stage: Is entered for ``track`` and ``masks`` in turn, to time them.

    Returns:
        What was found, and its masks (k, H0, W0) bool.
    """
    with stage("track"):
        result = tracker.step(image)
    with stage("masks"):
        masks = unfit_masks(result.mask_logits, geometry)
    return result, masks


class _Functions:
    """Two functions of the user's as a runner."""

    name = "own"
    runtime = "own"
    emulated = False

    def __init__(self, bundle: ExportBundle, frame: Graph, mask_head: Graph) -> None:
        self.specs: Mapping[Role, GraphSpec] = bundle.specs
        self._graphs: Mapping[Role, Graph] = {"frame": frame, "mask_head": mask_head}

    def outputs(self, calls: Sequence[Call]) -> list[dict[str, np.ndarray]]:
        """See :class:`~mobileinst_deploy.core.contract.GraphRunner`."""
        return [dict(self._graphs[call.role](call.inputs)) for call in calls]
