"""Records that stages return and files keep, each with its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class OfPair:
    """What every report on a pair begins with: which one, and what ran it.

    Attributes:
        bundle_sha256: Of the pair's manifest.
        model_id: Its model.
        trained: Whether its weights were trained; otherwise its masks mean nothing.
        device: Where the graphs ran.
        runtime: What ran them, such as ``onnxruntime 1.32.0``.
    """

    bundle_sha256: str
    model_id: str
    trained: bool
    device: str
    runtime: str


@dataclass(frozen=True)
class TensorParity:
    """One output tensor against its reference, the worst over all pictures.

    Attributes:
        graph: Role of the graph.
        tensor: Output name.
        max_abs: Largest absolute difference, in the tensor's unit.
        max_rel: Largest difference relative to the reference, over elements above the tolerance's
            absolute part, a ratio.
        cosine: Lowest cosine similarity over the pictures.
        max_excess: Largest ``|got - want| / (atol + rtol |want|)``; passes up to 1.
        worst: (picture, then the index within the tensor) where the excess is largest.
        passed: Whether every element and the cosine are within tolerance.
    """

    graph: str
    tensor: str
    max_abs: float
    max_rel: float
    cosine: float
    max_excess: float
    worst: tuple[int, ...]
    passed: bool


@dataclass(frozen=True)
class Check:
    """One rung of the ladder.

    Attributes:
        rung: Its name.
        passed: Whether it held.
        detail: What was compared, or what is wrong, in words.
        figures: The measured numbers behind it, by name.
    """

    rung: str
    passed: bool
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParityReport(OfPair):
    """The whole ladder of ``verify``.

    Attributes:
        reference: Where the reference came from.
        tolerance: What was allowed.
        checks: The rungs, in order, up to the first that made the next ones meaningless.
        tensors: Per tensor values.
        caveat: Why this is not the paper's protocol, or None.
    """

    reference: str
    tolerance: Mapping[str, float]
    checks: tuple[Check, ...]
    tensors: tuple[TensorParity, ...] = ()
    caveat: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every rung held."""
        return all(check.passed for check in self.checks)

    @property
    def first_failure(self) -> Check | None:
        """The lowest rung that did not hold."""
        return next((check for check in self.checks if not check.passed), None)

    def to_dict(self) -> dict[str, Any]:
        """The form of ``parity.json``."""
        return {"schema": SCHEMA, "passed": self.passed, **asdict(self)}


@dataclass(frozen=True)
class RunReport(OfPair):
    """One clip run through an exported pair: what was done and where the time went.

    Attributes:
        emulated: Whether that is an emulator; then the time of what it did is left out.
        source: The clip's name.
        size: (height, width) of its pictures in pixels.
        frames: How many were run.
        expected: How many the clip should have, if that was known.
        stopped: Why the run ended early, or None when it saw the whole clip.
        schedule: T, or ``auto``.
        settings: What counted as an instance.
        keyframes: How many frames ran the frame graph.
        tracks: Number of tracks by class name.
        seconds: Time per stage over all frames, s.
        wall_seconds: Time from the first picture asked for to the last written, s.
        notes: What a reader must know of the result.
        files: What was written, by what it is.
    """

    emulated: bool
    source: str
    size: tuple[int, int]
    frames: int
    expected: int | None
    stopped: str | None
    schedule: str
    settings: Mapping[str, float]
    keyframes: int
    tracks: Mapping[str, int]
    seconds: Mapping[str, float]
    wall_seconds: float
    notes: tuple[str, ...]
    files: Mapping[str, str]

    @property
    def frames_per_second(self) -> float | None:
        """End to end, reading and writing included; None on an emulator."""
        return None if self.emulated else self.frames / self.wall_seconds

    def to_dict(self) -> dict[str, Any]:
        """The form of ``run.json``."""
        return {"schema": SCHEMA, **asdict(self), "frames_per_second": self.frames_per_second}


@dataclass(frozen=True)
class EvalBlock:
    """AP of one model on one data set, for pictures or for clips at one T or ``auto``.

    Attributes:
        annotations: Name of the annotation file.
        annotations_sha256: Of its bytes.
        items: Pictures or clips.
        objects: Annotated objects that count, crowds included.
        frames: Pictures that were run.
        keyframes: How many of them by the frame graph; the others reused its kernels.
        skipped: How many annotations were left out, by reason.
        examples: Where the first of each reason is.
        settings: What counted as a track; empty for pictures.
        metrics: By COCO's or YouTube-VIS's names, in [0, 1]; None where nothing could be measured.
        per_class: AP by class name, likewise.
    """

    annotations: str
    annotations_sha256: str
    items: int
    objects: int
    frames: int
    keyframes: int
    skipped: Mapping[str, int]
    examples: Mapping[str, str]
    settings: Mapping[str, float]
    metrics: Mapping[str, float | None]
    per_class: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the metrics first, under their own names."""
        rest = {key: value for key, value in asdict(self).items() if key != "metrics"}
        return {**self.metrics, **rest}


@dataclass(frozen=True)
class EvalReport:
    """AP of one model.

    Attributes:
        model_id: Of the model.
        model_sha256: Of the bundle's manifest, the checkpoint, or the recipe of random weights.
        trained: Whether its weights were trained; otherwise AP means nothing. None where a file
            of results does not say.
        runtime: What ran it: ``pytorch`` or ``onnxruntime``; or ``results file``.
        input_size: (height, width), pixels; None where a file of results does not say.
        pictures: On pictures, if measured.
        clips: On clips, by T or ``auto``.
        caveat: Why this is not the paper's protocol, or None.
    """

    model_id: str
    model_sha256: str
    trained: bool | None
    runtime: str
    input_size: tuple[int, int] | None
    pictures: EvalBlock | None = None
    clips: Mapping[str, EvalBlock] = field(default_factory=dict)
    caveat: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The form of ``eval.json``; only what was measured is in it."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "model_id": self.model_id,
            "model_sha256": self.model_sha256,
            "trained": self.trained,
            "runtime": self.runtime,
            "input_size": None if self.input_size is None else list(self.input_size),
        }
        if self.caveat is not None:
            document["caveat"] = self.caveat
        if self.pictures is not None:
            document["pictures"] = self.pictures.to_dict()
        if self.clips:
            document["clips"] = {name: block.to_dict() for name, block in self.clips.items()}
        return document
