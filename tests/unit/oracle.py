"""A model that knows what drawn clips show, and ways to evaluate it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tiny import TINY

from mobileinst_deploy.core.contract import Call, GraphSpec, graph_specs
from mobileinst_deploy.core.journal import Journals
from mobileinst_deploy.data.shapes import CLASSES, ShapesClip, clip_seed
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE
from mobileinst_deploy.workflows.precision import evaluate_clips, evaluate_pictures
from mobileinst_deploy.workflows.subject import Subject

SIZE = (64, 128)


CLIPS, LENGTH = 3, 6


CONFIG = replace(TINY, classes=CLASSES, input_size=SIZE, num_queries=8)


SURE, NEVER = 8.0, -12.0


def at_full_resolution(spec: GraphSpec) -> GraphSpec:
    outputs = (
        replace(t, shape=(*t.shape[:2], *SIZE)) if t.name == "mask_logits" else t
        for t in spec.outputs
    )
    return replace(spec, outputs=tuple(outputs))


class Oracle:
    """Recognises each frame by its pixels and answers with its annotations, mask by mask.

    Query k is track k, and so is its kernel; mask logits have the picture's own resolution, so that
    nothing is lost on the way.
    """

    name, runtime, emulated = "oracle", "none", False
    specs: ClassVar = {r: at_full_resolution(s) for r, s in graph_specs(CONFIG).items()}

    def __init__(self, misname: bool = False, inside_out: bool = False) -> None:
        self.calls = 0
        self._misname = misname
        self._inside = -1 if inside_out else 1
        self._frames: dict[bytes, Any] = {}
        for clip in range(CLIPS):
            for frame in ShapesClip(clip_seed("test", clip), LENGTH, SIZE):
                self._frames[frame.image.tobytes()] = frame

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        return [getattr(self, call.role)(**call.inputs) for call in calls]

    def _look(self, image: np.ndarray) -> Any:
        self.calls += 1
        return self._frames[image[0].transpose(1, 2, 0).astype(np.uint8).tobytes()]

    def _masks(self, frame: Any) -> np.ndarray:
        logits = np.full((CONFIG.num_queries, *SIZE), -self._inside, np.float32)
        for track, mask in zip(frame.track_ids, frame.masks, strict=True):
            logits[track][mask] = self._inside
        return logits

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        frame = self._look(image)
        classes = np.full((CONFIG.num_queries, len(CLASSES)), NEVER, np.float32)
        objectness = np.full((CONFIG.num_queries, 1), NEVER, np.float32)
        shift = 1 if self._misname else 0
        for track, label in zip(frame.track_ids, frame.labels, strict=True):
            classes[track, (label + shift) % len(CLASSES)] = SURE
            objectness[track] = SURE
        return {
            "class_logits": classes[None],
            "objectness_logits": objectness[None],
            "kernels": np.eye(CONFIG.num_queries, CONFIG.width, dtype=np.float32)[None],
            "mask_logits": self._masks(frame)[None],
        }

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> dict[str, np.ndarray]:
        return {"mask_logits": self._masks(self._look(image))[None, kernels[0].argmax(1)]}


def subject(runner: Any = None, **changes: Any) -> Subject:
    made = Subject(
        id="oracle",
        config=CONFIG,
        sha256="0" * 64,
        trained=True,
        runtime="onnxruntime",
        device="cpu",
        folder=Path("none"),
        form="plain",
        runner=runner or Oracle(),
    )
    return replace(made, **changes)


def on_pictures(data: Path, journals: Path, of: Subject | None = None, **options: Any) -> Any:
    return evaluate_pictures(
        of or subject(), data / FRAMES, data / COCO_FILE, journals=Journals(journals), **options
    )


def on_clips(data: Path, journals: Path, schedule: str, of: Subject | None = None) -> Any:
    return evaluate_clips(
        of or subject(), data / FRAMES, data / YTVIS_FILE, schedule, journals=Journals(journals)
    )
