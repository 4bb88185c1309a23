"""``train.toml``: everything that determines a training run, checked when it is read."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from mobileinst_deploy.core.config import Count, check_size
from mobileinst_deploy.core.documents import Blame, check, convert, read_toml
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.files import canonical_sha256
from mobileinst_deploy.core.places import places
from mobileinst_deploy.core.text import whole

DataKind = Literal["shapes", "cutouts", "coco", "ytvis"]
StageKind = Literal["image", "video"]
Schedule = Literal["step", "cosine"]
Precision = Literal["no", "bf16", "fp16"]
MaskStride = Literal[1, 2, 4, 8]
Matching = Literal["sparseinst", "losses"]
#: Of iterations, clips and pixels of long sides: beyond them a number is a slip.
MAX_COUNT = 10**9
Steps = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
StepsOrNone = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Factor = Annotated[float, Meta(ge=0, le=1e6)]
Side = Annotated[int, Meta(ge=64, le=1 << 14)]
Text = Annotated[str, Meta(max_length=4096)]


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
        association_weight: Of a cross-entropy on whether kernels of a pair of frames are one
            instance's, told from their cosine as association tells it. Not the paper's. 0 leaves it
            out.
        mask_stride: Stride in pixels at which masks are compared, SparseInst's 4 by default. The
            network gives 8; a finer stride compares bilinearly resized logits, as they are used
            later.
        matching: By what queries are assigned to instances: ``sparseinst``, the rule of the network
            that the paper follows, or ``losses``, what a pair would add to the loss.
    """

    class_weight: Factor = 2.0
    mask_weight: Factor = 2.0
    objectness_weight: Factor = 1.0
    semantic_weight: Factor = 0.0
    association_weight: Factor = 0.0
    mask_stride: MaskStride = 4
    matching: Matching = "sparseinst"

    def __post_init__(self) -> None:
        check(self, ConfigError)


@dataclass(frozen=True)
class DataConfig:
    """What is trained on and how it is varied.

    Attributes:
        kind: ``shapes`` draws its own clips; ``coco`` and ``ytvis`` read annotation files;
            ``cutouts`` makes clips of a ``coco`` file's instances.
        annotations: The training annotations' JSON; all but shapes.
        images: Folder of their pictures.
        validation_annotations: Held-out annotations; without them nothing is evaluated.
        validation_images: Folder of their pictures; by default ``images``.
        first_clip: Index of the first made clip within the generator's training split.
        clips: Number of clips of shapes or cut-outs, made when they are needed.
        frames: Frames of each of them.
        validation_clips: Number of held-out ones.
        upright: Whether upright pictures are fitted into upright sizes: a batch then holds pictures
            of one orientation, and a stage's size is turned for the upright ones. They are drawn as
            often as before.
        repeat: Share of the pictures, or clips, below which a class counts as rare: those that show
            it are drawn ``sqrt(repeat / share)`` times as often (repeat-factor sampling, arXiv
            1908.03195, appendix B). 0 draws all alike. For ``coco`` and ``ytvis``.
        flip: Whether half of the samples are mirrored left to right.
        colour: How strongly light and colours are varied, from 0 to 1.
        paste: Most other pictures of which instances are pasted on a picture; how many is drawn
            evenly from 0 on. Needs stages with a zoom.
        max_gap: Largest delta between the two frames of a pair, frames; the paper tries up to 20.
        workers: Processes that read ahead for each training process; 0 reads in that process.
            ``auto`` measures the first steps with one, and goes on with as many as keep up.
    """

    kind: DataKind = "shapes"
    annotations: Text = ""
    images: Text = ""
    validation_annotations: Text = ""
    validation_images: Text = ""
    first_clip: StepsOrNone = 0
    clips: Steps = 1_000_000
    frames: Annotated[int, Meta(ge=1, le=10_000)] = 24
    validation_clips: StepsOrNone = 100
    upright: bool = False
    repeat: Annotated[float, Meta(ge=0, le=1)] = 0.0
    flip: bool = True
    colour: Annotated[float, Meta(ge=0, le=1)] = 0.0
    paste: Annotated[int, Meta(ge=0, le=100)] = 0
    max_gap: Steps = 5
    workers: Annotated[int, Meta(ge=0, le=1024)] | Literal["auto"] = 0

    def __post_init__(self) -> None:
        check(self, ConfigError)
        if self.kind != "shapes" and not (self.annotations and self.images):
            raise ConfigError(
                f"data.kind {self.kind} needs data.annotations and data.images",
                "Name the annotation file and the folder of its pictures",
            )
        if self.repeat and self.kind not in ("coco", "ytvis"):
            raise ConfigError(
                f"data.repeat is set, and data.kind {self.kind} makes its clips",
                "Leave it out, or take annotated pictures or clips",
            )


@dataclass(frozen=True)
class PicturesConfig:
    """Single pictures in every batch of a video stage, so that it does not forget pictures.

    They are frames of the data's clips; of cut-outs, the photographs that those are cut out of.

    Attributes:
        batch: How many, beside the stage's pairs.
        size: As a stage's.
        zoom: As a stage's.
    """

    batch: Annotated[int, Meta(ge=1, le=1 << 16)]
    size: tuple[Count, ...] = ()
    zoom: tuple[Annotated[float, Meta(ge=0.05, le=100)], ...] = ()

    def __post_init__(self) -> None:
        check(self, ConfigError)
        _check_zoom(self.size, self.zoom)


@dataclass(frozen=True)
class StageConfig:
    """One stage of the recipe: on pictures, or on pairs of frames.

    Attributes:
        kind: ``image`` or ``video``.
        batch: Pictures, or pairs, in one step of one process.
        lr: Learning rate of everything but the backbone.
        iterations: Optimiser steps; either these or ``epochs``.
        epochs: Length in passes over the data instead: an epoch is as many samples as the data has
            frames (a picture is one frame). ``decay_at`` then counts epochs, too.
        schedule: ``step`` multiplies by 0.1 at ``decay_at``; ``cosine`` falls to a hundredth.
        decay_at: Iterations, or epochs, of the step decay.
        warmup: Iterations of linear warm-up.
        query_passing: Whether pairs are also trained by query passing (section 3.5): true passes
            the queries that leave the global stage on to the other frame's local stage;
            ``local-local`` those that leave the local stage (Table 4, row 2).
        pictures: Of a video stage, single pictures in every batch beside the pairs.
        size: (height, width) that clips are made at in this stage; empty for the model's own.
            With a zoom, the size of every sample.
        zoom: Least and greatest factor by which a sample that was fitted into ``size`` is scaled,
            before it is cropped or padded to it at a drawn place; empty leaves this out.
        short_sides: Short sides in pixels to draw from; empty keeps the size. The paper: 416 to
            640 for COCO, 360 for YouTube-VIS.
        long_side: The most the long side may be, pixels.
    """

    kind: StageKind
    batch: Annotated[int, Meta(ge=1, le=1 << 16)]
    lr: Factor
    iterations: StepsOrNone = 0
    epochs: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    schedule: Schedule = "step"
    decay_at: tuple[Annotated[float, Meta(ge=0, le=1e9)], ...] = ()
    warmup: StepsOrNone = 0
    query_passing: bool | Literal["local-local"] = False
    pictures: PicturesConfig | None = None
    size: tuple[Count, ...] = ()
    zoom: tuple[Annotated[float, Meta(ge=0.05, le=100)], ...] = ()
    short_sides: tuple[Side, ...] = ()
    long_side: Side = 864

    def __post_init__(self) -> None:
        check(self, ConfigError)
        if bool(self.iterations) == bool(self.epochs):
            raise ConfigError(
                f"a stage has {self.iterations} iterations and {self.epochs:g} epochs",
                "Give either iterations or epochs, above 0",
            )
        _check_zoom(self.size, self.zoom)
        for name in ("query_passing", "pictures"):
            if getattr(self, name) and self.kind != "video":
                raise ConfigError(
                    f"{name} is set for a stage on pictures", "Use it in a video stage"
                )

    @property
    def samples(self) -> int:
        """Pictures, or pairs and pictures, in one step of one process."""
        return self.batch + (self.pictures.batch if self.pictures else 0)

    def on_pictures(self) -> StageConfig | None:
        """As what stage this one's pictures are drawn and varied; None where it has none."""
        if self.kind == "image":
            return self
        if self.pictures is None:
            return None
        own = self.pictures
        return replace(
            self, kind="image", batch=own.batch, size=own.size, zoom=own.zoom,
            query_passing=False, pictures=None,
        )  # fmt: skip

    def counted(self, frames: int, samples: int) -> StageConfig:
        """This stage in iterations.

        Args:
            frames: Frames of the data, the samples of an epoch.
            samples: That one optimiser step of all processes takes.
        """
        if not self.epochs:
            return self
        per_epoch = frames / samples
        return replace(
            self,
            iterations=max(round(self.epochs * per_epoch), 1),
            epochs=0.0,
            decay_at=tuple(round(at * per_epoch) for at in self.decay_at),
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
        clip_norm: Largest norm of the gradient; 0 leaves it as it is, as SparseInst does.
        ema: Decay of the averaged weights that are evaluated and kept; 0 keeps the last ones.
        accumulate: Batches whose gradients make one step.
        precision: Mixed precision.
        tf32: Whether products of float32 numbers on GPUs are made in TF32, which is several times
            as fast and has 10 bits of precision. CPUs take no notice.
        compile: Whether the network's parts are compiled by ``torch.compile``, which takes minutes
            before the first step, and again for the evaluation.
        threads: Threads of torch on a CPU; 0 leaves torch's choice.
        log_every: Iterations between rows of the log.
        save_every: Iterations between checkpoints.
        evaluate_every: Iterations between evaluations; 0 evaluates only at the end of a stage.
    """

    model: Annotated[str, Meta(min_length=1, max_length=4096)]
    stages: Annotated[tuple[StageConfig, ...], Meta(min_length=1, max_length=1000)]
    data: DataConfig = field(default_factory=DataConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    weight_decay: Factor = 0.05
    backbone_lr: Factor = 0.5
    frozen: tuple[Text, ...] = ()
    clip_norm: Factor = 0.0
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    accumulate: Annotated[int, Meta(ge=1, le=1 << 16)] = 1
    precision: Precision = "no"
    tf32: bool = True
    compile: bool = False
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    log_every: Steps = 20
    save_every: Steps = 500
    evaluate_every: StepsOrNone = 0

    def __post_init__(self) -> None:
        check(self, ConfigError)
        made = self.data.kind in ("shapes", "cutouts")
        on_pictures = [s for s in (stage.on_pictures() for stage in self.stages) if s is not None]
        read = [] if made else [*self.stages]
        if self.data.kind != "shapes":
            read += [s for s in on_pictures if s not in self.stages]
        if any(s.size and not s.zoom for s in read):
            raise ConfigError(
                "a stage has a size, but only shapes and cut-outs can be made at any",
                "Use short_sides or zoom",
            )
        if self.data.paste and not all(s.zoom for s in on_pictures):
            raise ConfigError(
                "data.paste is set, and a stage on pictures has no zoom",
                "Give it a size and a zoom",
            )

    def counted(self, frames: int, processes: int) -> TrainConfig:
        """This run with every stage's length in iterations.

        Args:
            frames: Frames of the data.
            processes: That train together.
        """
        return replace(
            self,
            stages=tuple(
                s.counted(frames, s.samples * self.accumulate * processes) for s in self.stages
            ),
        )

    @property
    def iterations(self) -> int:
        """Optimiser steps of all stages, where no stage is given in epochs."""
        return sum(stage.iterations for stage in self.stages)

    def stage_at(self, iteration: int) -> tuple[int, int]:
        """The number of the stage that an iteration of the run falls into, and its own in there."""
        for number, stage in enumerate(self.stages):
            if iteration < stage.iterations:
                return number, iteration
            iteration -= stage.iterations
        raise ValueError(f"iteration beyond the {self.iterations} of the run")

    def fingerprint(self) -> str:
        """What must be the same for a run to be resumed; saving, logging and speed may differ."""
        document = asdict(self)
        for name in ("log_every", "save_every", "evaluate_every", "threads", "tf32", "compile"):
            del document[name]
        del document["data"]["workers"]
        return canonical_sha256(document)


def _check_zoom(size: tuple[int, ...], zoom: tuple[float, ...]) -> None:
    if size:
        check_size(size)  # type: ignore[arg-type]
    if zoom and (len(zoom) != 2 or zoom[0] > zoom[1] or not size):
        raise ConfigError(
            f"zoom is {list(zoom)!r}, with size {list(size)!r}",
            "Give the least and the greatest factor, and a size",
        )


def _change(data: dict[str, Any], change: str) -> None:
    """Set one field of a recipe that was read, before anything is checked."""
    name, equals, text = change.partition("=")
    *way, last = name.strip().split(".")
    next_step = 'Write it as FIELD=VALUE, for example stages.0.batch=8 or model="mobileinst-demo"'
    if not (equals and last and all(way)):
        raise ConfigError(f"{change[:80]!r} changes nothing", next_step)
    try:
        given = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"the value of {change[:80]!r} is not TOML: {error}", next_step
        ) from error
    if given.keys() != {"value"}:
        raise ConfigError(f"{change[:80]!r} is more than one change", next_step)
    place: Any = data
    for step in way:
        index = whole(step, 0, len(place) - 1) if isinstance(place, list) else None
        if index is not None:
            place = place[index]
        elif isinstance(place, dict):
            place = place.setdefault(step, {})
        else:
            raise ConfigError(f"the recipe has no {name.strip()[:80]!r}", next_step)
    if not isinstance(place, dict):
        raise ConfigError(f"the recipe has no {name.strip()[:80]!r}", next_step)
    place[last] = given["value"]


@places(0)
def read_train_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a train.toml.

    Args:
        path: The file.
        changes: What to change in it first, as ``FIELD=VALUE``, the value as TOML writes it. Fields
            of tables and of stages are reached by dots: ``stages.0.batch=8``, ``data.workers=4``.

    Raises:
        ConfigError: It is missing, no TOML, or a field is unknown, of another type or out of range.
    """
    blame = Blame(str(path), ConfigError, "Compare it with a train.toml of the zoo")
    if not changes:
        return read_toml(path, TrainConfig, blame)
    document = read_toml(path, dict[str, Any], blame)
    for change in changes:
        _change(document, change)
    return convert(document, TrainConfig, blame)
