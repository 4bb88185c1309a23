"""``train.toml``: everything that determines a training run, checked when it is read."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from mobileinst_deploy.core.config import check_size
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import canonical_sha256

DataKind = Literal["shapes", "coco", "ytvis"]
StageKind = Literal["image", "video"]
Schedule = Literal["step", "cosine"]
Precision = Literal["no", "bf16", "fp16"]
MASK_STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True)
class LossConfig:
    """Weights and resolution of the losses (paper section 3.6).

    Attributes:
        class_weight: Of the focal loss.
        mask_weight: Of dice and of pixel BCE.
        objectness_weight: Of the objectness BCE.
        semantic_weight: Of a cross-entropy on the classes of cells inside instances, told from mask
            features by a convolution that only training has. Not the paper's: it teaches a backbone
            that begins with random weights what a class looks like. 0 leaves it out.
        mask_stride: Stride in pixels at which masks are compared. The network gives 8; a finer
            stride compares bilinearly resized logits, as they are used later.
    """

    class_weight: float = 2.0
    mask_weight: float = 2.0
    objectness_weight: float = 1.0
    semantic_weight: float = 0.0
    mask_stride: int = 8

    def __post_init__(self) -> None:
        for name in ("class_weight", "mask_weight", "objectness_weight", "semantic_weight"):
            _at_least(f"losses.{name}", getattr(self, name), 0)
        _one_of("losses.mask_stride", self.mask_stride, MASK_STRIDES)


@dataclass(frozen=True)
class DataConfig:
    """What is trained on and how it is varied.

    Attributes:
        kind: ``shapes`` draws its own clips; ``coco`` and ``ytvis`` read annotation files.
        annotations: The training annotations' JSON; coco and ytvis.
        images: Folder of their pictures.
        validation_annotations: Held-out annotations; without them nothing is evaluated.
        validation_images: Folder of their pictures; by default ``images``.
        first_clip: Index of the first shapes clip within the generator's training split.
        clips: Number of shapes clips, drawn when they are needed.
        frames: Frames of each shapes clip.
        validation_clips: Number of held-out shapes clips.
        flip: Whether half of the samples are mirrored left to right.
        colour: How strongly light and colours are varied, from 0 to 1.
        paste: Most other pictures of which instances are pasted on a picture; how many is drawn
            evenly from 0 on. Needs stages with a zoom.
        max_gap: Largest delta between the two frames of a pair, frames.
        workers: Processes that read ahead; 0 reads in the training process.
    """

    kind: DataKind = "shapes"
    annotations: str = ""
    images: str = ""
    validation_annotations: str = ""
    validation_images: str = ""
    first_clip: int = 0
    clips: int = 1_000_000
    frames: int = 24
    validation_clips: int = 100
    flip: bool = True
    colour: float = 0.0
    paste: int = 0
    max_gap: int = 5
    workers: int = 0

    def __post_init__(self) -> None:
        _one_of("data.kind", self.kind, get_args(DataKind))
        for name in ("clips", "frames", "max_gap"):
            _at_least(f"data.{name}", getattr(self, name), 1)
        for name in ("first_clip", "workers", "validation_clips", "paste", "colour"):
            _at_least(f"data.{name}", getattr(self, name), 0)
        if self.colour > 1:
            raise ConfigError(f"data.colour is {self.colour!r}, above 1", "Use at most 1")
        if self.kind != "shapes" and not (self.annotations and self.images):
            raise ConfigError(
                f"data.kind {self.kind} needs data.annotations and data.images",
                "Name the annotation file and the folder of its pictures",
            )


@dataclass(frozen=True)
class StageConfig:
    """One stage of the recipe: on pictures, or on pairs of frames.

    Attributes:
        kind: ``image`` or ``video``.
        iterations: Optimiser steps.
        batch: Pictures, or pairs, in one step of one process.
        lr: Learning rate of everything but the backbone.
        schedule: ``step`` multiplies by 0.1 at ``decay_at``; ``cosine`` falls to a hundredth.
        decay_at: Iterations of the step decay.
        warmup: Iterations of linear warm-up.
        query_passing: Whether pairs are also trained by query passing (section 3.5).
        size: (height, width) that shapes are drawn at in this stage; empty for the model's own. With
            a zoom, the size of every sample.
        zoom: Least and greatest factor by which a sample that was fitted into ``size`` is scaled,
            before it is cropped or padded to it at a drawn place; empty leaves this out.
        short_sides: Short sides in pixels to draw from; empty keeps the size. The paper: 416 to
            640 for COCO, 360 for YouTube-VIS.
        long_side: The most the long side may be, pixels.
    """

    kind: StageKind
    iterations: int
    batch: int
    lr: float
    schedule: Schedule = "step"
    decay_at: tuple[int, ...] = ()
    warmup: int = 0
    query_passing: bool = False
    size: tuple[int, ...] = ()
    zoom: tuple[float, ...] = ()
    short_sides: tuple[int, ...] = ()
    long_side: int = 864

    def __post_init__(self) -> None:
        _one_of("stage.kind", self.kind, get_args(StageKind))
        _one_of("stage.schedule", self.schedule, get_args(Schedule))
        for name in ("iterations", "batch"):
            _at_least(f"stage.{name}", getattr(self, name), 1)
        for side in (self.long_side, *self.short_sides):
            _at_least("stage.short_sides and stage.long_side", side, 64)
        if self.size:
            check_size(self.size)  # type: ignore[arg-type]
        if self.zoom:
            for factor in self.zoom:
                _at_least("stage.zoom", factor, 0.05)
            if len(self.zoom) != 2 or self.zoom[0] > self.zoom[1] or not self.size:
                raise ConfigError(
                    f"stage.zoom is {list(self.zoom)!r}, with size {list(self.size)!r}",
                    "Give the least and the greatest factor, and a size",
                )
        _at_least("stage.warmup", self.warmup, 0)
        _at_least("stage.lr", self.lr, 0)
        if self.query_passing and self.kind != "video":
            raise ConfigError(
                "query_passing is set for a stage on pictures", "Use it in a video stage"
            )

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration of this stage, counted from 0."""
        if iteration < self.warmup:
            return self.lr * (iteration + 1) / self.warmup
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(iteration >= at for at in self.decay_at)
        done = (iteration - self.warmup) / max(self.iterations - self.warmup, 1)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        model: Zoo id or path of the model.toml, relative to the train.toml.
        stages: In order.
        data: What is trained on.
        losses: What is minimised.
        seed: Of the initial weights and of every draw.
        weight_decay: AdamW's.
        backbone_lr: Multiplier of the backbone's learning rate (paper: 0.5).
        frozen: Modules of the network that keep the weights they begin with, their BatchNorm in
            eval mode, by name; for example ``backbone.features.0``.
        clip_norm: Largest norm of the gradient.
        ema: Decay of the averaged weights that are evaluated and kept; 0 keeps the last ones.
        accumulate: Batches whose gradients make one step.
        precision: Mixed precision.
        threads: Threads of torch on a CPU; 0 leaves torch's choice.
        log_every: Iterations between rows of the log.
        save_every: Iterations between checkpoints.
        evaluate_every: Iterations between evaluations; 0 evaluates only at the end of a stage.
    """

    model: str
    stages: tuple[StageConfig, ...]
    data: DataConfig = field(default_factory=DataConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    seed: int = 0
    weight_decay: float = 0.05
    backbone_lr: float = 0.5
    frozen: tuple[str, ...] = ()
    clip_norm: float = 1.0
    ema: float = 0.0
    accumulate: int = 1
    precision: Precision = "no"
    threads: int = 0
    log_every: int = 20
    save_every: int = 500
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("the training configuration has no stage", "Add a [[stages]] table")
        if self.data.kind != "shapes" and any(s.size and not s.zoom for s in self.stages):
            raise ConfigError(
                "a stage has a size, but only shapes can be drawn at any", "Use short_sides or zoom"
            )
        if self.data.paste and not all(s.zoom for s in self.stages if s.kind == "image"):
            raise ConfigError(
                "data.paste is set, and a stage on pictures has no zoom",
                "Give it a size and a zoom",
            )
        _one_of("precision", self.precision, get_args(Precision))
        for name in ("accumulate", "log_every", "save_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("seed", "weight_decay", "backbone_lr", "threads", "evaluate_every", "ema"):
            _at_least(name, getattr(self, name), 0)
        if self.ema >= 1 or self.clip_norm <= 0:
            raise ConfigError("ema must be below 1 and clip_norm above 0", "Correct them")

    @property
    def iterations(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.iterations for stage in self.stages)

    def stage_at(self, iteration: int) -> tuple[int, int]:
        """The number of the stage that an iteration of the run falls into, and its own in there."""
        for number, stage in enumerate(self.stages):
            if iteration < stage.iterations:
                return number, iteration
            iteration -= stage.iterations
        raise ValueError(f"iteration beyond the {self.iterations} of the run")

    def fingerprint(self) -> str:
        """What must be the same for a run to be resumed; saving and logging may differ."""
        document = asdict(self)
        for name in ("log_every", "save_every", "evaluate_every", "threads"):
            del document[name]
        del document["data"]["workers"]
        return canonical_sha256(document)


_Record = TypeVar("_Record")


def read_train_config(path: Path) -> TrainConfig:
    """Read a train.toml.

    Raises:
        ConfigError: It is missing, no TOML, or a field is unknown, of another type or out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable TOML: {error}", "Correct the file") from error
    stages = data.pop("stages", [])
    if not isinstance(stages, list):
        raise ConfigError("stages is not a list of tables", "Write each stage as [[stages]]")
    data["stages"] = tuple(_record(StageConfig, stage, "stages") for stage in stages)
    for name, kind in (("data", DataConfig), ("losses", LossConfig)):
        if name in data:
            data[name] = _record(kind, data[name], name)
    return _record(TrainConfig, data, str(path))


def _record(kind: type[_Record], data: Any, where: str) -> _Record:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} is not a table", f"Write it as [{where}]")
    known = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(
            f"{where} has unknown fields: {', '.join(unknown)}",
            f"Known are {', '.join(sorted(known))}",
        )
    values = {}
    for name, value in data.items():
        wanted = str(known[name])
        if isinstance(value, list):
            value = tuple(value)
        if wanted == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        expected = {"int": int, "float": float, "bool": bool, "str": str}.get(wanted)
        if expected is not None and type(value) is not expected:
            raise ConfigError(f"{where}: {name} is {value!r}, not {wanted}", "Correct its type")
        if wanted.startswith("tuple") and not isinstance(value, tuple):
            raise ConfigError(f"{where}: {name} is {value!r}, not a list", "Write it as a list")
        values[name] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}", "Add the missing field") from error


def _at_least(name: str, value: float, least: float) -> None:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        raise ConfigError(f"{name} is {value!r}, not a number from {least} up", "Correct it")


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{name} is {value!r}", f"Use one of {', '.join(str(item) for item in allowed)}"
        )
