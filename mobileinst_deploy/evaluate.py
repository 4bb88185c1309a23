"""Average precision of a checkpoint or an exported pair, on pictures or on clips.

Pictures and clips stream: what the model finds in one is kept as run lengths in a journal and
matched with the annotations at once. An interrupted evaluation goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobileinst_deploy import __version__
from mobileinst_deploy.average_precision import (
    CLIP_METRICS,
    PICTURE_METRICS,
    AveragePrecision,
    Candidate,
    Truth,
)
from mobileinst_deploy.bundle import load_bundle
from mobileinst_deploy.datasets.annotations import Media, read_frame, to_rle
from mobileinst_deploy.datasets.coco import CocoPictures
from mobileinst_deploy.datasets.ytvis import YtvisClips
from mobileinst_deploy.errors import ConfigError
from mobileinst_deploy.files import canonical_sha256, sha256_of, write_json
from mobileinst_deploy.geometry import fit, unfit_masks
from mobileinst_deploy.journal import Journal
from mobileinst_deploy.masks import Rle, encode, rle_area, side_by_side
from mobileinst_deploy.progress import Progress, silent
from mobileinst_deploy.results import EvalBlock, EvalReport
from mobileinst_deploy.schedule import Every
from mobileinst_deploy.specs import ModelConfig
from mobileinst_deploy.track import FrameModel, RunnerModel, Tracker, TrackSettings, class_scores

EVAL_FILE = "eval.json"
#: COCO's limit of (mask, class) pairs per picture, and ours per clip.
MOST_FOUND = 100
#: AP is measured over all scores, so that far weaker tracks count than a person wants to see.
TRACK_SETTINGS = TrackSettings(score=0.05)


@dataclass(frozen=True)
class Subject:
    """A model that can be evaluated.

    Attributes:
        id: Its name.
        config: What it is.
        sha256: Of the bundle's manifest, the checkpoint, or the recipe of random weights.
        trained: Whether its weights were trained.
        runtime: ``pytorch`` or ``onnxruntime``.
        folder: Where its ``eval.json`` belongs.
        model: Runs its two graphs.
    """

    id: str
    config: ModelConfig
    sha256: str
    trained: bool
    runtime: str
    folder: Path
    model: FrameModel


def open_subject(name: str, device: str = "cpu") -> Subject:
    """Load what the user named.

    Args:
        name: An exported folder, a checkpoint, a model.toml, or a zoo id.
        device: ``cpu``, or for PyTorch also torch's name of another device, such as ``cuda``.

    Raises:
        BundleError: It is a folder, but no whole exported pair.
        CheckpointError: The weights are unreadable or of another model.
        ConfigError: There is no such model or device.
    """
    path = Path(name)
    if path.is_dir():
        return _pair(path, device)
    return _network(name, device)


def evaluate_pictures(
    subject: Subject,
    images: Path,
    annotations: Path,
    *,
    journals: Path,
    progress: Progress = silent,
) -> EvalBlock:
    """Mask AP on pictures, from COCO's form of annotations.

    Every picture gives its :data:`MOST_FOUND` best (mask, class) pairs by score, without a
    threshold.

    Args:
        subject: The model.
        images: Folder of the pictures.
        annotations: Their JSON file.
        journals: Folder for what an interrupted evaluation leaves.
        progress: Told of every picture.

    Raises:
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: The journal cannot be written.
    """
    data = CocoPictures(images, annotations, subject.config.classes)

    def search(medium: Media) -> list[Candidate]:
        return find_in_picture(subject, read_frame(medium, 0, images))

    return _evaluate(subject, data, annotations, search, PICTURE_METRICS, {}, journals, progress)


def evaluate_clips(
    subject: Subject,
    images: Path,
    annotations: Path,
    clip_length: int,
    *,
    journals: Path,
    settings: TrackSettings = TRACK_SETTINGS,
    progress: Progress = silent,
) -> EvalBlock:
    """Track AP on clips, from YouTube-VIS's form of annotations.

    Args:
        subject: The model.
        images: Folder of the clips' pictures.
        annotations: Their JSON file.
        clip_length: T, frames per keyframe.
        journals: Folder for what an interrupted evaluation leaves.
        settings: What counts as a track.
        progress: Told of every clip.

    Raises:
        ConfigError: The clip length is below 1.
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: The journal cannot be written.
    """
    Every(clip_length)
    data = YtvisClips(images, annotations, subject.config.classes)

    def search(medium: Media) -> list[Candidate]:
        frames = (read_frame(medium, t, images) for t in range(len(medium.files)))
        return find_in_clip(subject, frames, medium.size, clip_length, settings)

    used = {"clip_length": clip_length, **asdict(settings)}
    return _evaluate(subject, data, annotations, search, CLIP_METRICS, used, journals, progress)


def find_in_picture(subject: Subject, image: np.ndarray) -> list[Candidate]:
    """What a model finds in a picture (H, W, 3) uint8 RGB, at the picture's own resolution."""
    fitted, geometry = fit(image, subject.config.input_size)
    outputs = subject.model.frame(_as_input(fitted))
    scores = class_scores(outputs["class_logits"][0], outputs["objectness_logits"][0])
    best = _best_pairs(scores)
    queries = list(best)
    masks = unfit_masks(outputs["mask_logits"][0, queries], geometry)
    return [
        Candidate(encode(mask), best[query])
        for query, mask in zip(queries, masks, strict=True)
        if mask.any()
    ]


def find_in_clip(
    subject: Subject,
    frames: Iterable[np.ndarray],
    size: tuple[int, int],
    clip_length: int,
    settings: TrackSettings = TRACK_SETTINGS,
) -> list[Candidate]:
    """The tracks that a model finds in a clip, each as its masks side by side.

    Args:
        subject: The model.
        frames: Pictures (H, W, 3) uint8 RGB, in order; one is in memory at a time.
        size: (H, W) of them.
        clip_length: T, frames per keyframe.
        settings: What counts as a track.
    """
    tracker = Tracker(subject.model, Every(clip_length), settings)
    shown: dict[int, dict[int, Rle]] = {}
    count = 0
    for t, image in enumerate(frames):
        fitted, geometry = fit(image, subject.config.input_size)
        frame = tracker.step(_as_input(fitted))
        for track, mask in zip(
            frame.ids.tolist(), unfit_masks(frame.mask_logits, geometry), strict=True
        ):
            if mask.any():
                shown.setdefault(track, {})[t] = encode(mask)
        count = t + 1
    tracks = sorted(shown)
    if not tracks:
        return []
    best = _best_pairs(np.stack([tracker.tracks[track].class_scores for track in tracks]))
    return [
        Candidate(side_by_side([shown[tracks[i]].get(t) for t in range(count)], size), pairs)
        for i, pairs in best.items()
    ]


def save_report(
    subject: Subject, folder: Path, pictures: EvalBlock | None, clips: Mapping[str, EvalBlock]
) -> dict[str, Any]:
    """Write ``eval.json`` and return what is in it.

    Blocks that an earlier evaluation of the same model wrote there stay; another model's go.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = folder / EVAL_FILE
    document = EvalReport(
        model_id=subject.id,
        model_sha256=subject.sha256,
        trained=subject.trained,
        runtime=subject.runtime,
        input_size=subject.config.input_size,
        pictures=pictures,
        clips=clips,
    ).to_dict()
    try:
        earlier = json.loads(path.read_bytes())
    except (OSError, ValueError):
        earlier = {}
    same = ("schema", "model_sha256", "runtime", "input_size")
    if isinstance(earlier, dict) and all(earlier.get(key) == document[key] for key in same):
        by_length = {**earlier.get("clips", {}), **document.pop("clips", {})}
        if "pictures" in earlier:
            document.setdefault("pictures", earlier["pictures"])
        if by_length:
            document["clips"] = {name: by_length[name] for name in sorted(by_length, key=int)}
    write_json(path, document)
    return document


def _evaluate(
    subject: Subject,
    data: CocoPictures | YtvisClips,
    annotations: Path,
    search: Callable[[Media], list[Candidate]],
    names: tuple[str, ...],
    settings: Mapping[str, float],
    journals: Path,
    progress: Progress,
) -> EvalBlock:
    """Search every item that the journal does not know yet, and match all."""
    sha256 = sha256_of(annotations)
    key = {
        "version": __version__,
        "model": subject.sha256,
        "runtime": subject.runtime,
        "input_size": list(subject.config.input_size),
        "annotations": sha256,
        "settings": dict(settings),
    }
    label = f"evaluate {annotations.name}"
    if "clip_length" in settings:
        label += f" at T = {settings['clip_length']}"
    precision = AveragePrecision(subject.config.classes)
    with Journal(journals, key) as journal:
        known = journal.entries()
        for number, medium in enumerate(data.media):
            entry = next(known, None)
            if entry is not None:
                found = _candidates(entry)
            else:
                found = search(medium)
                journal.add([[c.mask["size"], c.mask["counts"], c.scores] for c in found])
            size = medium.size[0], medium.size[1] * len(medium.files)
            precision.add(size, _truth(medium), found)
            progress(label, number + 1, len(data.media))
        block = EvalBlock(
            annotations=annotations.name,
            annotations_sha256=sha256,
            items=len(data.media),
            objects=precision.objects,
            skipped=dict(data.skipped),
            settings=settings,
            metrics=precision.metrics(names),
            per_class=precision.per_class(),
        )
        journal.remove()
    return block


def _candidates(entry: list[Any]) -> list[Candidate]:
    """The journal's form of what was found."""
    return [
        Candidate({"size": size, "counts": counts}, tuple((label, score) for label, score in pairs))
        for size, counts, pairs in entry
    ]


def _truth(medium: Media) -> list[Truth]:
    """What a picture or clip shows, in the form to match with."""
    truth = []
    for item in medium.objects:
        rles = [None if s is None else to_rle(s, medium.size) for s in item.segmentations]
        if len(rles) == 1 and rles[0] is not None:
            mask, area = rles[0], item.area
        else:
            mask, area = side_by_side(rles, medium.size), None
        truth.append(Truth(item.label, mask, rle_area(mask) if area is None else area, item.crowd))
    return truth


def _best_pairs(scores: np.ndarray) -> dict[int, tuple[tuple[int, float], ...]]:
    """The best (row, class) pairs of scores (n, C), by row: ``{row: ((class, score), ...)}``."""
    flat = scores.ravel()
    best: dict[int, list[tuple[int, float]]] = {}
    for index in np.argsort(-flat, kind="stable")[:MOST_FOUND].tolist():
        row, label = divmod(index, scores.shape[1])
        best.setdefault(row, []).append((label, float(flat[index])))
    return {row: tuple(pairs) for row, pairs in best.items()}


def _as_input(fitted: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to the graphs' (1, 3, H, W) float32, still 0 to 255."""
    return np.ascontiguousarray(fitted.transpose(2, 0, 1)[None], np.float32)


def _pair(folder: Path, device: str) -> Subject:
    from mobileinst_deploy.ort import CpuRunner

    if device != "cpu":
        raise ConfigError(
            f"an exported pair is evaluated on cpu, not on {device!r}",
            "Leave --device out; verify proves the device equal to this machine",
        )
    bundle = load_bundle(folder)
    specs = {role: graph.spec for role, graph in bundle.graphs.items()}
    return Subject(
        id=bundle.model_id,
        config=bundle.config,
        sha256=bundle.sha256,
        trained=bundle.trained,
        runtime="onnxruntime",
        folder=folder,
        model=RunnerModel(CpuRunner(bundle), specs),
    )


def _network(name: str, device: str) -> Subject:
    from mobileinst_deploy.loading import load_model
    from mobileinst_deploy.torchmodel import TorchModel
    from mobileinst_deploy.zoo import load_model_toml

    loaded = load_model(name)
    try:
        model = TorchModel(loaded.model, device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"PyTorch cannot use the device {device!r}: {reason}", "Use cpu, or cuda with a GPU"
        ) from error
    path = Path(name)
    folder = path.parent if path.is_file() else load_model_toml(name).folder
    recipe = {"config": loaded.config.to_dict(), "seed": loaded.seed}
    return Subject(
        id=loaded.id,
        config=loaded.config,
        sha256=loaded.checkpoint_sha256 or canonical_sha256(recipe),
        trained=loaded.trained,
        runtime="pytorch",
        folder=folder,
        model=model,
    )
